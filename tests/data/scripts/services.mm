namespace services

# The gateway of the guests, and where they get their addresses
tap create guests ip 10.4.0.1/24 gw
dnsmasq start 10.4.0.1 10.4.0.100 10.4.0.199
dnsmasq configure 0 options option:router,10.4.0.254
dnsmasq configure 0 dns 10.4.0.20 www.lab
dnsmasq configure 0 ip 00:16:3e:00:00:20 10.4.0.20

vm config memory 16
vm config net guests,00:16:3e:00:00:20
vm launch kvm www
vm config net guests outside
vm launch kvm r1
vm config net guests
vm launch kvm client[0-5]

# minimega's routers
router r1 interface 0 10.4.0.254/24
router r1 interface 1 dhcp
router r1 dhcp 10.4.0.254 range 10.4.0.2 10.4.0.9
router r1 route static 0.0.0.0/0 192.0.2.1
router r1 commit

cc send file:agent.conf
cc exec systemctl restart agent
cc background tcpdump -i any
shell touch services-started
vm start www
