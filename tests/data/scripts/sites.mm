# Two sites, each in a namespace of its own.
namespace hq
vlans add wan 410
vm config memory 16
vm config net lan wan
vm launch kvm router
vm config net lan
vm launch kvm pc[0-4]
tap create lan ip 10.1.0.1/24 hq-lan

namespace branch
vlans add wan 411
vm config memory 16
vm config net wan lan
vm launch kvm router
vm config net lan
vm launch kvm 2
namespace hq vm net connect pc4 0 wan
namespace branch vm tag router site oslo
vm start router
