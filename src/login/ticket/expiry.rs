//! When a ticket expires, as the file says in which it is: a credential cache of version 3 or 4, as MIT's and Heimdal's
//! libraries write it. Whatever is in the file, nothing is read beyond its end. Pure.

/// What is written there as if it was a ticket, and is none.
const CONFIG_REALM: &[u8] = b"X-CACHECONF:";
/// The service whose ticket gets all others.
const GRANTING: &[u8] = b"krbtgt";
/// A name has no more parts, and a cache no more tickets.
const PARTS_MAX: u32 = 64;
const TICKETS_MAX: usize = 1000;

/// When the ticket that gets all others expires, in seconds since 1970; where there is none, the ticket that lasts longest.
/// `None` if it holds no ticket, or makes no sense.
pub(super) fn of(cache: &[u8]) -> Option<i64> {
    let mut bytes = Bytes(cache);
    let [5, version @ 3..=4] = bytes.take(2)? else {
        return None;
    };
    let version = *version;
    if version == 4 {
        let header = bytes.u16()?;
        bytes.take(header.into())?;
    }
    bytes.principal()?;
    let mut ends = Vec::new();
    while !bytes.0.is_empty() && ends.len() < TICKETS_MAX {
        // The last one may be half written.
        match bytes.ticket(version) {
            Some(ticket) => ends.extend(ticket),
            None => break,
        }
    }
    let latest = |granting: bool| {
        let ends = ends
            .iter()
            .filter(|(is_granting, _)| *is_granting || !granting);
        ends.map(|(_, end)| i64::from(*end)).max()
    };
    latest(true).or_else(|| latest(false))
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Bytes behind their number.
    fn data(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).ok()?)
    }

    /// The realm of a name, and its first part.
    fn principal(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let _kind = self.u32()?;
        let parts = self.u32().filter(|parts| *parts <= PARTS_MAX)?;
        let realm = self.data()?;
        let mut first = &[][..];
        for part in 0..parts {
            let data = self.data()?;
            if part == 0 {
                first = data;
            }
        }
        Some((realm, first))
    }

    /// Addresses, or what a ticket authorizes: pairs of a kind and bytes.
    fn pairs(&mut self) -> Option<()> {
        for _ in 0..self.u32()? {
            self.u16()?;
            self.data()?;
        }
        Some(())
    }

    /// Whether a ticket gets all others, and when it ends; of what is no ticket, nothing.
    fn ticket(&mut self, version: u8) -> Option<Option<(bool, u32)>> {
        let _client = self.principal()?;
        let (realm, service) = self.principal()?;
        // The key: its kind, in version 3 twice, and its bytes.
        self.take(if version == 3 { 4 } else { 2 })?;
        self.data()?;
        let _since_and_from = self.take(8)?;
        let end = self.u32()?;
        // Until when it can be renewed, whether it has a key of its own, and flags.
        self.take(4 + 1 + 4)?;
        self.pairs()?;
        self.pairs()?;
        self.data()?;
        self.data()?;
        Some((realm != CONFIG_REALM).then_some((service == GRANTING, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(bytes: &[u8]) -> Vec<u8> {
        let mut data = (bytes.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(bytes);
        data
    }

    fn principal(realm: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 1];
        bytes.extend((parts.len() as u32).to_be_bytes());
        bytes.extend(data(realm));
        parts.iter().for_each(|part| bytes.extend(data(part)));
        bytes
    }

    fn ticket(version: u8, realm: &[u8], parts: &[&[u8]], end: u32) -> Vec<u8> {
        let mut bytes = principal(b"R", &[b"ann"]);
        bytes.extend(principal(realm, parts));
        bytes.extend(&[0, 18, 0, 18][..if version == 3 { 4 } else { 2 }]);
        bytes.extend(data(b"key"));
        for time in [1, 2, end, 4] {
            bytes.extend(u32::to_be_bytes(time));
        }
        bytes.extend([0, 0, 0, 0, 0]);
        // An address, nothing that it authorizes.
        bytes.extend([0, 0, 0, 1, 0, 2]);
        bytes.extend(data(b"addr"));
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(data(b"ticket"));
        bytes.extend(data(b""));
        bytes
    }

    fn cache(version: u8, tickets: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![5, version];
        if version == 4 {
            bytes.extend([0, 3, 7, 7, 7]);
        }
        bytes.extend(principal(b"R", &[b"ann"]));
        bytes.extend(tickets.concat());
        bytes
    }

    #[test]
    fn the_ticket_that_gets_all_others_counts() {
        for version in [3, 4] {
            let config = ticket(version, CONFIG_REALM, &[b"krb5_ccache_conf_data"], u32::MAX);
            let granting = ticket(version, b"R", &[b"krbtgt", b"R"], 5000);
            let host = ticket(version, b"R", &[b"host", b"nas"], 9000);
            let all = cache(version, &[config.clone(), granting, host.clone()]);
            assert_eq!(of(&all), Some(5000), "{version}");
            assert_eq!(of(&cache(version, &[config.clone(), host])), Some(9000));
            assert_eq!(of(&cache(version, &[config])), None);
        }
    }

    #[test]
    fn whatever_the_file_holds_is_read_to_its_end_at_most() {
        let whole = cache(4, &[ticket(4, b"R", &[b"krbtgt", b"R"], 5000)]);
        for len in 0..whole.len() {
            assert_eq!(of(&whole[..len]), None, "{len}");
            let mut odd = whole.clone();
            odd[len] = 0xff;
            of(&odd);
        }
        for none in [
            &b""[..],
            b"\x05",
            b"\x05\x02",
            b"\x05\x05",
            b"\x05\x04\xff\xff",
            b"text",
        ] {
            assert_eq!(of(none), None);
        }
    }
}
