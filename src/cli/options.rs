//! The options after `-o`, as mount(8), fstab and automounters pass them. Pure.
//!
//! Options that are for mount(8) itself, or ask for what a home is anyway, are accepted and skipped. Any
//! setting of the configuration may be given as `key=value`.

/// What the options say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// `port=`.
    pub(super) port: Option<u16>,
    /// `config=`.
    pub(super) config: Option<String>,
    /// `allow_other`.
    pub(super) allow_other: bool,
    /// `ro`.
    pub(super) read_only: bool,
    /// `setuid=`, as of mount.fuse(8).
    pub(super) setuid: Option<String>,
    /// `nonempty`.
    pub(super) nonempty: bool,
    /// All others, as key and value; the keys may still be unknown.
    pub(super) settings: Vec<(String, String)>,
}

/// For mount(8), systemd or the kernel; or true of every home.
const SKIPPED: [&str; 36] = [
    "_netdev",
    "async",
    "atime",
    "auto",
    "default_permissions",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "fail",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofail",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "rw",
    "silent",
    "strictatime",
    "suid",
    "user",
    "users",
];

/// The same, with a value or a name after them.
const SKIPPED_PREFIXES: [&str; 7] = [
    "x-", "X-", "comment=", "user=", "fsname=", "subtype=", "context=",
];

/// Reads a list of options, separated by commas; later ones win.
pub(super) fn parse(lists: &[String]) -> Result<MountOptions, String> {
    let mut options = MountOptions::default();
    for option in lists.iter().flat_map(|list| list.split(',')) {
        match option.trim() {
            "" => {}
            "allow_other" => options.allow_other = true,
            "ro" => options.read_only = true,
            "nonempty" => options.nonempty = true,
            option if is_skipped(option) => {}
            option => match option.split_once('=') {
                Some(("port", port)) => {
                    let port = port.parse().map_err(|_| format!("{option}: not a port"))?;
                    options.port = Some(port);
                }
                Some(("setuid", account)) => options.setuid = Some(account.to_owned()),
                Some(("config", path)) => options.config = Some(path.to_owned()),
                Some((key, value)) => options.settings.push((long_key(key), value.to_owned())),
                None => return Err(format!("{option}: there is no such mount option")),
            },
        }
    }
    // mount(8) passes `rw` for every mount that is not `ro`, so `rw` takes nothing back.
    Ok(options)
}

fn is_skipped(option: &str) -> bool {
    SKIPPED.contains(&option) || SKIPPED_PREFIXES.iter().any(|p| option.starts_with(p))
}

/// What people know from sshfs, and short forms.
fn long_key(key: &str) -> String {
    match key {
        "state" => "state_dir".to_owned(),
        "IdentityFile" => "identity".to_owned(),
        "UserKnownHostsFile" => "known_hosts".to_owned(),
        // The command line's spelling.
        key => key.replace('-', "_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<MountOptions, String> {
        parse(&[text.to_owned()])
    }

    #[test]
    fn what_fstab_says_for_others_is_skipped() {
        let text = "defaults,_netdev,noauto,nofail,user,users,user=ann,auto,rw,noatime,nosuid,nodev,\
            x-systemd.automount,x-systemd.idle-timeout=60,comment=a home,X-mount.mkdir,,";
        assert_eq!(parsed(text), Ok(MountOptions::default()));
    }

    #[test]
    fn what_is_meant_for_roamhome_is_understood() {
        let options = parsed(
            "port=2222,identity=/k,state=/s,allow_other,ro,setuid=ann,config=/c,host-key-policy=accept-new",
        )
        .unwrap();
        assert_eq!(options.port, Some(2222));
        assert_eq!(options.config.as_deref(), Some("/c"));
        assert_eq!(options.setuid.as_deref(), Some("ann"));
        assert!(options.allow_other && options.read_only && !options.nonempty);
        let settings: Vec<_> = options
            .settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            settings,
            [
                ("identity", "/k"),
                ("state_dir", "/s"),
                ("host_key_policy", "accept-new")
            ]
        );
    }

    #[test]
    fn what_nobody_knows_is_refused_by_name() {
        assert_eq!(
            parsed("rw,alow_other"),
            Err("alow_other: there is no such mount option".to_owned())
        );
        assert!(parsed("port=ssh").is_err());
    }
}
