// SPDX-License-Identifier: Apache-2.0
//! Who a client of an export is, and which clients a rule admits.
//!
//! An export without rules admits whoever may connect; with rules, whoever at least one of them names.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use driver_api::{Error, ErrorKind, Result};

/// A client, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: Address,
    /// The certificate that it proved to own, verified against the configured authorities.
    pub certificate: Option<Certificate>,
}

/// Where a client comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    /// From this machine, with the user that the kernel vouches for.
    Unix {
        /// The user's number; none where the kernel does not say.
        uid: Option<u32>,
    },
    /// Over the network.
    Tcp(SocketAddr),
}

/// What rules can name of a client's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The DNS names that it is issued for.
    pub dns_names: Vec<String>,
    /// The SHA-256 of its DER form.
    pub sha256: [u8; 32],
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Address::Unix { uid: Some(uid) } => write!(f, "user {uid}")?,
            Address::Unix { uid: None } => f.write_str("a local user")?,
            Address::Tcp(address) => write!(f, "{address}")?,
        }
        match &self.certificate {
            Some(Certificate { dns_names, sha256 }) if dns_names.is_empty() => {
                write!(f, " with certificate sha256:{}", Hex(sha256))
            }
            Some(certificate) => write!(f, " as {}", certificate.dns_names.join(", ")),
            None => Ok(()),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A kind of client that an export admits. Its text is what [`Rule::from_str`] reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    /// `unix`: everybody who can open the unix socket.
    Unix,
    /// `uid:N`: one user of this machine.
    Uid(u32),
    /// `net:ADDRESS` or `net:ADDRESS/BITS`: a network.
    Net(IpAddr, u8),
    /// `cert:NAME`: who has a certificate for this DNS name.
    Cert(String),
    /// `sha256:HEX`: who has this certificate.
    Sha256([u8; 32]),
}

const FORMS: &str = "write unix, uid:1000, net:10.0.0.0/8, cert:vm1.example.org, or sha256: and \
                     the certificate's 64 hexadecimal digits";

impl Rule {
    /// Whether it names this client.
    pub fn admits(&self, peer: &Peer) -> bool {
        let certificate = peer.certificate.as_ref();
        match (self, peer.address) {
            (Self::Unix, Address::Unix { .. }) => true,
            (Self::Uid(wanted), Address::Unix { uid: Some(uid) }) => *wanted == uid,
            (Self::Net(net, bits), Address::Tcp(address)) => {
                // A client of IPv4 on a socket of IPv6 has an address of IPv4 all the same.
                network(address.ip().to_canonical(), *bits) == Some(*net)
            }
            (Self::Cert(wanted), _) => certificate.is_some_and(|certificate| {
                certificate.dns_names.iter().any(|name| name.eq_ignore_ascii_case(wanted))
            }),
            (Self::Sha256(wanted), _) => {
                certificate.is_some_and(|certificate| certificate.sha256 == *wanted)
            }
            _ => false,
        }
    }
}

/// The first address of the network that `address` is in; `None` if it has no such network.
fn network(address: IpAddr, bits: u8) -> Option<IpAddr> {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(bits)?).unwrap_or(0);
            Some(IpAddr::V4((u32::from(address) & mask).into()))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(bits)?).unwrap_or(0);
            Some(IpAddr::V6((u128::from(address) & mask).into()))
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Net(net, bits) if *bits == width(*net) => write!(f, "net:{net}"),
            Self::Net(net, bits) => write!(f, "net:{net}/{bits}"),
            Self::Cert(name) => write!(f, "cert:{name}"),
            Self::Sha256(sum) => write!(f, "sha256:{}", Hex(sum)),
        }
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str, remedy: String| {
            Error::new(ErrorKind::INVALID_ARGUMENT, format!("{text:?} admits nobody: {why}"))
                .remedy(remedy)
        };
        let unknown = || wrong("there is no such kind of rule", FORMS.to_owned());
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (kind, value) = text.split_once(':').ok_or_else(unknown)?;
        match kind {
            "uid" => value.parse().map(Self::Uid).map_err(|_| {
                wrong("a user is named by number here", "write what `id -u NAME` prints".to_owned())
            }),
            "net" => net(value).map_err(|(why, remedy)| wrong(&why, remedy)),
            "cert" if is_dns_name(value) => Ok(Self::Cert(value.to_ascii_lowercase())),
            "cert" => Err(wrong(
                "this is not a DNS name",
                "write a whole name from the certificate's subject alternative names, \
                 such as cert:vm1.example.org; a pattern is not possible"
                    .to_owned(),
            )),
            "sha256" => sum(value).map(Self::Sha256).ok_or_else(|| {
                wrong(
                    "a SHA-256 has 64 hexadecimal digits",
                    "write what `openssl x509 -in FILE -noout -fingerprint -sha256` prints"
                        .to_owned(),
                )
            }),
            _ => Err(unknown()),
        }
    }
}

fn net(value: &str) -> std::result::Result<Rule, (String, String)> {
    let (address, bits) = match value.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (value, None),
    };
    let address: IpAddr = address.parse().map_err(|_| {
        let why = format!("{address:?} is not an address");
        (why, "write numbers, such as net:10.0.0.0/8 or net:2001:db8::/32".to_owned())
    })?;
    // What clients' addresses are compared as.
    let (given, address) = (address, address.to_canonical());
    let bits = match bits {
        None => width(address),
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= width(given)).ok_or_else(|| {
            (
                format!("{bits:?} is not a length of a network"),
                "write /0 to /32, or /128".to_owned(),
            )
        })?,
    };
    // The length of a network of mapped addresses counts the 96 bits before them.
    let bits = match (given == address, value.contains('/')) {
        (false, true) => bits.checked_sub(96).ok_or_else(|| {
            ("it mixes IPv4 and IPv6".to_owned(), format!("write net:{address}/{bits}"))
        })?,
        _ => bits,
    };
    match network(address, bits) {
        Some(first) if first == address => Ok(Rule::Net(address, bits)),
        Some(first) => Err((
            format!("{value:?} names an address inside of a network"),
            format!("write net:{first}/{bits} for the network, or net:{address} for the one"),
        )),
        None => Err(("it is no network".to_owned(), FORMS.to_owned())),
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Digits as `sha256sum` writes them, or in pairs between colons, as `openssl x509 -fingerprint` does.
fn sum(value: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = value
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| char::from(byte).to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
