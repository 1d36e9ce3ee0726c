//! A neighbour on the wire that asks by multicast DNS (RFC 6762), over Ethernet frames of its own making: QEMU's user
//! network carries no multicast, its datagram network carries frames.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use image::qemu::free_port;

const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const PORT: u16 = 5353;

/// One end of a wire; the machine has the other.
pub struct Wire {
    socket: UdpSocket,
    machine: u16,
}

impl Wire {
    pub fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Self {
            socket,
            machine: free_port().unwrap(),
        }
    }

    /// QEMU's arguments for a second network card at the other end.
    pub fn card(&self) -> Vec<String> {
        let own = self.socket.local_addr().unwrap().port();
        let inet = |end: &str, port: u16| format!("{end}.type=inet,{end}.host=127.0.0.1,{end}.port={port}");
        vec![
            "-netdev".to_owned(),
            format!("dgram,id=wire,{},{}", inet("local", self.machine), inet("remote", own)),
            "-device".to_owned(),
            "e1000e,netdev=wire".to_owned(),
        ]
    }

    /// Asks for records of a name until an answer holds all of `wanted`, and returns it.
    pub fn ask(&self, name: &str, kind: u16, wanted: &[&str], within: Duration) -> Vec<u8> {
        let end = Instant::now() + within;
        let mut heard = Vec::new();
        while Instant::now() < end {
            self.socket
                .send_to(&frame(&query(name, kind)), (Ipv4Addr::LOCALHOST, self.machine))
                .unwrap();
            let mut buffer = [0; 2048];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let Some(answer) = answer_in(&buffer[..length]) else {
                    continue;
                };
                let has = |text: &&str| {
                    answer
                        .windows(text.len())
                        .any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
                };
                if wanted.iter().all(has) {
                    return answer.to_vec();
                }
                heard.push(String::from_utf8_lossy(answer).into_owned());
            }
        }
        panic!("nobody answered for {name} with {wanted:?}; heard {heard:?}");
    }
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(1_u16.to_be_bytes());
    message
}

/// Ethernet, IPv6 and UDP around a message for the group.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + message.len()).unwrap();
    let mut udp = [PORT.to_be_bytes(), PORT.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    udp.extend(message);
    // RFC 8200 section 8.1: the pseudo-header counts too.
    let pseudo = [
        &OWN.octets()[..],
        &GROUP.octets(),
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, 17],
        &udp,
    ]
    .concat();
    let sum = pseudo
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let ethernet = [0x33, 0x33, 0, 0, 0, 0xfb, 0x52, 0x54, 0, 0, 0, 0x99, 0x86, 0xdd];
    let ip = [0x60, 0, 0, 0, length.to_be_bytes()[0], length.to_be_bytes()[1], 17, 255];
    [&ethernet[..], &ip, &OWN.octets(), &GROUP.octets(), &udp].concat()
}

/// The multicast DNS answer that an Ethernet frame carries, if it does.
fn answer_in(frame: &[u8]) -> Option<&[u8]> {
    let message = match frame.get(12..14)? {
        [0x86, 0xdd] if frame.get(20) == Some(&17) => frame.get(54..)?,
        [0x08, 0x00] if frame.get(23) == Some(&17) => frame.get(14 + usize::from(frame[14] & 15) * 4..)?,
        _ => return None,
    };
    (message.get(..2)? == PORT.to_be_bytes())
        .then(|| message.get(8..))
        .flatten()
        .filter(|dns| dns.get(2).is_some_and(|flags| flags & 0x80 != 0))
}
