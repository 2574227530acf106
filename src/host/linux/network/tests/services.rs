//! Learning and leasing, with real frames.

use std::net::{IpAddr, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::*;
use crate::host::{Heard, Learning, Leasing};
use crate::name::Mac;

const PATIENCE: Duration = Duration::from_secs(60);

/// An ARP request by which `guest` says that it has an address.
fn announce(guest: &Guest, sender: [u8; 6], address: [u8; 4]) {
    let request = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender, &address, &[0; 6], &address].concat();
    guest.send(BROADCAST, [8, 6], &request);
}

/// An IPv6 neighbour advertisement for an address of its own.
fn advertise(guest: &Guest, address: &str) {
    let own = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut packet = [&[0x60, 0, 0, 0, 0, 24, 58, 255][..], &own, &[0xff; 16]].concat();
    packet.extend([&[136, 0, 0, 0, 0, 0, 0, 0][..], &own].concat());
    guest.send(BROADCAST, [0x86, 0xdd], &packet);
}

#[test]
fn addresses_are_heard_on_the_tap_that_they_come_from() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::Auto);
    let (sender, heard) = mpsc::channel();
    lab.network.learn(Arc::new(move |heard: Heard| {
        // What is not wanted is told again.
        let wanted = heard.address != IpAddr::from([10, 0, 0, 66]);
        sender.send((heard.tap.to_string(), heard.mac, heard.address.to_string())).is_ok() && wanted
    }));
    lab.network.create_all(&[vm("a", Some(1)), vm("b", Some(1)), host("h", Some(1), &[("10.0.0.254", 24)])]).unwrap();
    let [a, b] = [("a", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
    let told =
        |guest: &Guest, tap: &str, address: &str| (tap.to_owned(), Mac::from_octets(guest.mac), address.to_owned());
    let next = || heard.recv_timeout(PATIENCE).unwrap();

    // Said twice, heard once; on the way to other ports and from the engine itself not at all.
    announce(&a, a.mac, [10, 0, 0, 1]);
    assert_eq!(next(), told(&a, "a", "10.0.0.1"));
    announce(&a, a.mac, [10, 0, 0, 1]);
    announce(&a, a.mac, [0, 0, 0, 0]);
    announce(&a, b.mac, [10, 0, 0, 2]);
    lab.inside(|| UdpSocket::bind("10.0.0.254:0").unwrap().send_to(b"x", "10.0.0.9:9").unwrap());
    advertise(&b, "fe80::2");
    assert_eq!(next(), told(&b, "b", "fe80::2"));
    advertise(&b, "fd00::2");
    assert_eq!(next(), told(&b, "b", "fd00::2"));
    advertise(&b, "fe80::2");
    announce(&b, b.mac, [10, 0, 0, 2]);
    assert_eq!(next(), told(&b, "b", "10.0.0.2"));

    // What is forgotten, what was not wanted and what has changed is told again.
    announce(&a, a.mac, [10, 0, 0, 66]);
    assert_eq!(next(), told(&a, "a", "10.0.0.66"));
    announce(&a, a.mac, [10, 0, 0, 66]);
    assert_eq!(next(), told(&a, "a", "10.0.0.66"));
    lab.network.forget(&name("b"));
    announce(&b, b.mac, [10, 0, 0, 2]);
    assert_eq!(next(), told(&b, "b", "10.0.0.2"));
    announce(&b, b.mac, [10, 0, 0, 3]);
    assert_eq!(next(), told(&b, "b", "10.0.0.3"));

    // A tap of the same name that is made anew is another one.
    drop(a);
    lab.network.delete(&name("a")).unwrap();
    lab.network.create(&vm("a", Some(1))).unwrap();
    let a = Guest::attach(&lab, "a", 1);
    announce(&a, a.mac, [10, 0, 0, 1]);
    assert_eq!(next(), told(&a, "a", "10.0.0.1"));
    assert!(heard.try_recv().is_err());
}

/// A DHCP server on the tap `h` (10.0.0.254/24) that answers as it is told: for each request, the address to give and for
/// how many seconds, or None for a refusal. It tells of each request whether it names
/// the server ("new") or not ("renew").
fn serve(lab: &Lab, answers: Vec<Option<([u8; 4], u32)>>) -> mpsc::Receiver<String> {
    let (sender, requests) = mpsc::channel();
    let socket = lab.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
        setsockopt(&socket, sockopt::BindToDevice, &"h".into()).unwrap();
        socket.set_broadcast(true).unwrap();
        socket
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        let mut current = answers.next();
        let mut buffer = [0; 2048];
        while let (Some(answer), Ok((length, _))) = (current, socket.recv_from(&mut buffer)) {
            let request = &buffer[..length];
            let discover = request[240..243] == [53, 1, 1];
            let (address, seconds) = answer.unwrap_or(([0; 4], 0));
            let kind = match (discover, answer) {
                (true, _) => 2,
                (false, Some(_)) => 5,
                (false, None) => 6,
            };
            let mut reply = request[..240].to_vec();
            reply[0] = 2;
            reply[16..20].copy_from_slice(&address);
            reply.extend([53, 1, kind, 54, 4, 10, 0, 0, 254, 1, 4, 255, 255, 255, 0, 51, 4]);
            reply.extend(seconds.to_be_bytes());
            reply.push(255);
            socket.send_to(&reply, "255.255.255.255:68").unwrap();
            if !discover {
                let renew = request[243..245] == [50, 4] && request[249] != 54;
                let _ = sender.send(if renew { "renew" } else { "new" }.to_owned());
                current = answers.next();
            }
        }
    });
    requests
}

#[test]
fn a_lease_is_renewed_and_a_refused_one_is_given_up() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::Auto);
    lab.network.create_all(&[host("h", Some(1), &[("10.0.0.254", 24)]), host("c", Some(1), &[])]).unwrap();
    let addresses = || lab.network.list().unwrap().into_iter().find(|port| port.tap == name("c")).unwrap().addresses;
    let error = lab.network.lease(&name("c"), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, NetworkError::NoLease { .. }), "{error}");
    assert_eq!(addresses(), []);

    let first = Some(([10, 0, 0, 5], 4));
    let requests = serve(&lab, vec![first, first, None, Some(([10, 0, 0, 6], 1000))]);
    let next = || requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(lab.network.lease(&name("c"), PATIENCE).unwrap(), ([10, 0, 0, 5].into(), 24));
    assert_eq!(addresses(), [([10, 0, 0, 5].into(), 24)]);
    assert_eq!([next(), next()], ["new", "renew"]);
    // Refused at the next renewal, it asks for another one.
    assert_eq!([next(), next()], ["renew", "new"]);
    let patient = std::time::Instant::now();
    while addresses() != [([10, 0, 0, 6].into(), 24)] {
        assert!(patient.elapsed() < PATIENCE, "{:?}", addresses());
        std::thread::sleep(Duration::from_millis(20));
    }
    // It goes with its tap, and does not keep the namespace.
    lab.network.delete(&name("c")).unwrap();
    lab.network.delete(&name("h")).unwrap();
    lab.network.release(false).unwrap();
    assert!(!lab.pin().exists());
}
