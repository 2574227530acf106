namespace impaired
vm config memory 16
vm config net a b
vm launch kvm left
vm launch kvm right
vm config net a b watch
vm launch kvm ids

# a satellite link
qos add left 1 delay 300ms
qos add left 1 loss 2
qos add right 1 rate 512 kbit
qos add ids 0 rate 1 mbit
qos add ids 0 delay 5ms
qos add right 0 delay 5ms
clear qos right 0

# what is recorded
capture pcap snaplen 200
capture pcap filter "tcp port 80"
capture pcap vm left 0 left.pcap
capture pcap bridge mega_bridge all.pcap
clear capture pcap
capture pcap vm right 1 right.pcap
capture netflow mode ascii
capture netflow bridge mega_bridge flows.txt

tap mirror left 0 ids 2
bridge tunnel vxlan far 192.0.2.7 12
vlans blacklist 105
plumb alarms "grep -v test" pager
pipe pager mode round-robin
