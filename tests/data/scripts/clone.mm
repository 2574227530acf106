namespace clone
# what all have
vm config memory 20
vm config snapshot true
vm config disks base.qcow2
vm config save base

vm config net lan
vm launch kvm a[1-3]

vm config restore base
vm config memory 28
vm config vcpus 2
vm config disk base.qcow2 data.qcow2,virtio
vm config net lan,virtio-net-pci storage
vm config save big
vm launch kvm db
vm launch kvm db-replica

# like a1, but with a console of its own
vm config clone a1
vm config serial-ports 1
vm launch kvm logger

clear vm config
vm config memory 20
vm config cdrom live.iso
vm launch kvm live[0-1]
vm config restore big
clear vm config vcpus
vm config net storage
vm launch kvm backup
vm start a1
