# written by a program: do not edit
namespace generated
clear vm config
vm config memory 16
vm config kernel $guest/vmlinuz
vm config net core,00:00:5e:00:53:01 edge
vm config append hostname=n1 ip=10.5.0.1/24
vm launch kvm n1
clear vm config
vm config memory 16
vm config kernel $guest/vmlinuz
vm config net core,00:00:5e:00:53:02 edge
vm config append hostname=n2 ip=10.5.0.2/24
vm launch kvm n2
clear vm config
vm config memory 16
vm config kernel $guest/vmlinuz
vm config net core,00:00:5e:00:53:03 edge
vm config append hostname=n3 ip=10.5.0.3/24
vm launch kvm n3
clear vm config
vm config memory 32
vm config kernel $guest/vmlinuz
vm config net core,00:00:5e:00:53:04
vm config append hostname=n4 ip=10.5.0.4/24
vm config tags role controller
vm launch kvm n4
vm net disconnect n3 1
vm start n4
