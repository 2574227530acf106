namespace aliases
.alias launch=vm launch kvm
.alias net=vm config networks
.env size 20
.env lan office
# common settings are in a file of their own
read common.mm
net $lan
launch pc[0-2]     # for the trainees
net ${lan} dmz
vm config memory $size
launch gateway
shell echo "ready"
.unalias net
net dmz
vm config tags owner "$nobody"
vm launch kvm www
history
