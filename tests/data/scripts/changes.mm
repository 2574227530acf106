namespace changes
vm config memory 16
vm config net one two
vm launch kvm a,b,c,d
vm start a
vm stop a
vm tag a,b colour red
vm tag all batch 7
clear vm tag b batch
vm net connect b 1 three
vm net disconnect c 0
vm kill d
vm flush d
vm config net three
vm launch kvm d
vm cdrom change a live.iso
vm cdrom eject a
vm cdrom change b live.iso
tap create one name t0
tap create two bridge br1 name gone
tap delete gone
vm net bond c 0,1 active-backup off
nat add two 10.6.0.1/24
nat add three 10.7.0.1/24
nat delete three
capture pcap vm a 0 a.pcap
capture pcap delete vm a
vm lunch kvm e
vm launch kvm a
vm start nobody
