#!/usr/bin/minimega
# ---------------------------------------------
# A range for an exercise: 40 machines in three
# networks behind a firewall.
# ---------------------------------------------

namespace range
vlans range 200 299
vlans add management 250

# The office: workstations
vm config memory 20
vm config vcpus 1
vm config kernel $guest/vmlinuz
vm config initrd $guest/guest.cpio.gz
vm config append console=ttyS0 quiet
vm config networks office
vm config tags role workstation
vm launch kvm ws[1-20]

# Servers are larger
vm config memory 24
vm config networks servers management
vm config tags role server
vm launch kvm web[1-9],mail,files

# The red team sees the office only   (4 of them)
clear vm config tags
vm config memory 20
vm config networks office red
vm launch kvm red[01-04]

vm config networks office servers red
vm launch kvm firewall   # in the middle of it

vm config networks management
# vm config disks scanner.qcow2
vm launch kvm scanner[1-4]
vm tag firewall zone border

tap create management ip 10.9.0.254/24 mgmt
.columns name,state,vlan vm info
