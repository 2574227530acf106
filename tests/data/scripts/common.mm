# read by aliases.mm
vm config memory 16
vm config vcpus 1
vm config append "console=ttyS0" 'root=/dev/ram0 quiet'
vm config kernel $guest/vmlinuz
