//! Access control lists as Linux hands them over: version 2 of the extended attributes, little endian.
//!
//! What a list says of the owner, of the most that groups and named users get (its mask, or its group where it has
//! none) and of all others is what the mode says. So the mode alone is kept up to date, and a list is read
//! [`with_mode`](Acl::with_mode): whoever changes the mode has changed the list.

/// Who may do what with a file.
pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";

/// What becomes the list of what is made in a directory.
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;

/// Bytes before the first entry.
const HEADER: usize = 4;

/// Bytes of an entry: tag and permissions in two bytes each, and whom it names in four.
const ENTRY: usize = 8;

/// As many entries as fit into the page in which the kernel takes and hands out a list.
const MOST_ENTRIES: usize = (4096 - HEADER) / ENTRY;

/// Names nobody.
const NO_ID: u32 = u32::MAX;

/// Whom an entry is about, with the kernel's numbers. An entry's place in a list is the order of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    Group = 0x04,
    NamedGroup = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    const ALL: [Self; 6] = [
        Self::Owner,
        Self::User,
        Self::Group,
        Self::NamedGroup,
        Self::Mask,
        Self::Other,
    ];

    fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| *tag as u16 == number)
    }

    fn names_somebody(self) -> bool {
        matches!(self, Self::User | Self::NamedGroup)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    permissions: u16,
    id: u32,
}

/// A list that says something of everybody: owner, group and others once each, a mask if anybody is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

/// Why bytes are no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Of another version, or cut off.
    #[error("this is no access control list of version 2")]
    Form,
    /// An entry that there is not, or that says more than read, write and execute.
    #[error("an entry of the access control list has no meaning")]
    Entry,
    /// Entries are missing, or too many, or out of order.
    #[error("the access control list is not complete and in order")]
    Order,
    /// It has more entries than the kernel hands over.
    #[error("the access control list has more than {MOST_ENTRIES} entries")]
    TooLong,
}

impl Acl {
    /// The list that `bytes` are; `None` if they say that there is none.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, AclError> {
        let (header, entries) = bytes.split_first_chunk::<HEADER>().ok_or(AclError::Form)?;
        if u32::from_le_bytes(*header) != VERSION {
            return Err(AclError::Form);
        }
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        match entries.len() {
            _ if !rest.is_empty() => return Err(AclError::Form),
            0 => return Ok(None),
            number if number > MOST_ENTRIES => return Err(AclError::TooLong),
            _ => {}
        }
        let entries = entries.iter().map(parse_entry).collect::<Result<_, _>>()?;
        let list = Self(entries);
        match list.is_in_order() {
            true => Ok(Some(list)),
            false => Err(AclError::Order),
        }
    }

    /// The same rules as the kernel's (`posix_acl_valid`), so that what is stored can be handed out again.
    fn is_in_order(&self) -> bool {
        let number = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let names_somebody = self.0.iter().any(|entry| entry.tag.names_somebody());
        self.0.is_sorted_by_key(|entry| entry.tag)
            && [Tag::Owner, Tag::Group, Tag::Other].map(number) == [1; 3]
            && (usize::from(names_somebody)..=1).contains(&number(Tag::Mask))
    }

    /// As the kernel takes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend((entry.tag as u16).to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// The nine permission bits that say the same, as far as they can.
    pub fn mode(&self) -> u32 {
        let bits = self.0.iter().filter_map(|entry| {
            let shift = self.shift(entry.tag)?;
            Some(u32::from(entry.permissions) << shift)
        });
        bits.sum()
    }

    /// The list after somebody set these permission bits.
    pub fn with_mode(mut self, mode: u32) -> Self {
        for index in 0..self.0.len() {
            if let Some(shift) = self.shift(self.0[index].tag) {
                self.0[index].permissions = (mode >> shift & 0o7) as u16;
            }
        }
        self
    }

    /// Whether permission bits say all of it.
    pub fn is_all_in_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// Where the mode says what an entry says.
    fn shift(&self, tag: Tag) -> Option<u32> {
        let has_mask = self.0.iter().any(|entry| entry.tag == Tag::Mask);
        match tag {
            Tag::Owner => Some(6),
            Tag::Mask => Some(3),
            Tag::Group if !has_mask => Some(3),
            Tag::Other => Some(0),
            Tag::Group | Tag::User | Tag::NamedGroup => None,
        }
    }
}

fn parse_entry(bytes: &[u8; ENTRY]) -> Result<Entry, AclError> {
    let [tag_low, tag_high, low, high, id @ ..] = *bytes;
    let tag = Tag::of(u16::from_le_bytes([tag_low, tag_high])).ok_or(AclError::Entry)?;
    let permissions = u16::from_le_bytes([low, high]);
    let id = u32::from_le_bytes(id);
    let is_known = permissions <= 0o7 && (!tag.names_somebody() || id != NO_ID);
    // Whom the others name is nobody, whatever stands there.
    let id = if tag.names_somebody() { id } else { NO_ID };
    match is_known {
        true => Ok(Entry {
            tag,
            permissions,
            id,
        }),
        false => Err(AclError::Entry),
    }
}

#[cfg(test)]
mod tests;
