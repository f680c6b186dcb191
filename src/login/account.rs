//! Accounts of this machine, and whose home may follow them.

use std::path::PathBuf;

use nix::unistd::User;

/// An account, as the machine's name service tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The main group.
    pub gid: u32,
    /// The home directory, where the home is mounted.
    pub home: PathBuf,
}

impl Account {
    /// The account with this name, or with this number; none if there is none.
    pub fn find(name_or_uid: &str) -> std::io::Result<Option<Self>> {
        let user = match name_or_uid.parse() {
            Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid))?,
            Err(_) => User::from_name(name_or_uid)?,
        };
        Ok(user.map(|user| Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
        }))
    }

    /// Whether the home may follow this account at all: a person's, with a name that can stand in a path.
    pub fn is_person(&self, min_uid: u32) -> bool {
        self.uid >= min_uid.max(1) && is_plain(&self.name)
    }
}

/// Whether a name means one directory wherever a template puts it.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && !name.starts_with('-')
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, uid: u32) -> Account {
        Account {
            name: name.into(),
            uid,
            gid: uid,
            home: PathBuf::from("/home").join(name),
        }
    }

    #[test]
    fn system_accounts_stay_where_they_are() {
        for (name, uid, expected) in [
            ("ann", 1000, true),
            ("ann@example.org", 70_000, true),
            ("EXAMPLE\\ann", 70_000, true),
            ("daemon", 1, false),
            ("root", 0, false),
        ] {
            assert_eq!(account(name, uid).is_person(1000), expected, "{name}");
        }
        // Whatever is configured.
        assert!(!account("root", 0).is_person(0));
    }

    #[test]
    fn no_name_leads_out_of_its_directory() {
        for name in [
            "", ".", "..", "../root", "a/b", "/etc", "-rf", "a b", "a\nb", "a\0b",
        ] {
            assert!(!account(name, 1000).is_person(1000), "{name:?}");
        }
    }
}
