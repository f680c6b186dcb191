//! Where things are on this machine, for one user. Computed from an [`Env`], which tests make up.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The user and what the environment says about their directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// The user's number.
    pub uid: u32,
    /// The user's name.
    pub user: String,
    /// The home directory on this machine, which a mount may cover.
    pub home: PathBuf,
    /// `$XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
}

impl Env {
    /// The effective user of this process and its environment.
    pub fn current() -> io::Result<Self> {
        let uid = nix::unistd::geteuid();
        let entry = nix::unistd::User::from_uid(uid)?;
        let var = |name| std::env::var_os(name).map(PathBuf::from);
        // Relative paths in these variables are invalid by the XDG specification.
        let absolute = |name| var(name).filter(|path| path.is_absolute());
        let (user, home) = match entry {
            Some(entry) => (entry.name, entry.dir),
            // Users without an entry exist in containers.
            None => (uid.to_string(), PathBuf::from("/")),
        };
        Ok(Self {
            uid: uid.as_raw(),
            user,
            home: absolute("HOME").unwrap_or(home),
            xdg_config_home: absolute("XDG_CONFIG_HOME"),
            xdg_state_home: absolute("XDG_STATE_HOME"),
            xdg_runtime_dir: absolute("XDG_RUNTIME_DIR"),
        })
    }

    /// An account, as the machine knows it, with no environment.
    pub fn of_account(user: &str, uid: u32, home: &Path) -> Self {
        Self {
            uid,
            user: user.to_owned(),
            home: home.to_owned(),
            xdg_config_home: None,
            xdg_state_home: None,
            xdg_runtime_dir: None,
        }
    }

    /// The administrator's configuration files, lowest first; they need not exist.
    pub fn system_config_files(&self) -> Vec<PathBuf> {
        vec![
            "/etc/roamhome/config.toml".into(),
            Path::new("/etc/roamhome/users").join(format!("{}.toml", self.user)),
        ]
    }

    /// All configuration files, lowest first; they need not exist.
    pub fn config_files(&self) -> Vec<PathBuf> {
        let own = self
            .xdg_config_home
            .clone()
            .unwrap_or_else(|| self.home.join(".config"));
        let mut files = self.system_config_files();
        files.push(own.join("roamhome/config.toml"));
        files
    }

    /// The directory that holds one state directory for each home.
    pub fn state_root(&self) -> PathBuf {
        if self.uid == 0 {
            return "/var/lib/roamhome".into();
        }
        self.xdg_state_home
            .clone()
            .unwrap_or_else(|| self.home.join(".local/state"))
            .join("roamhome")
    }

    /// Where control sockets of mounts that root made are.
    pub fn system_runtime_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/roamhome/{}", self.uid))
    }

    /// Where control sockets may be, the preferred first. A daemon takes the first that it can make; who
    /// looks for a daemon looks in all, since a login's environment differs from that of a timer.
    pub fn runtime_dirs(&self) -> Vec<PathBuf> {
        let system = self.system_runtime_dir();
        // Root with another user's environment (sudo -E) must leave nothing in that user's directory.
        if self.uid == 0 {
            return vec![system];
        }
        let usual = PathBuf::from(format!("/run/user/{}", self.uid));
        let mut dirs = Vec::new();
        for dir in self.xdg_runtime_dir.iter().chain([&usual]) {
            let dir = dir.join("roamhome");
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        dirs.extend([system, self.state_root().join("run")]);
        dirs
    }

    /// Fills in `{user}`, `{uid}`, `{home}` and a leading `~/`.
    pub fn fill_in(&self, template: &str) -> String {
        let home = self.home.to_string_lossy();
        let text = match template.strip_prefix("~/") {
            Some(rest) => format!("{home}/{rest}"),
            None => template.to_owned(),
        };
        text.replace("{user}", &self.user)
            .replace("{uid}", &self.uid.to_string())
            .replace("{home}", &home)
    }
}

/// The file name of the control socket for the mount at `mountpoint`, an absolute path.
pub fn control_socket_name(mountpoint: &Path) -> String {
    let bytes = mountpoint.as_os_str().as_bytes();
    // The end of the path says most, and socket addresses are short (107 bytes).
    let readable = mountpoint
        .file_name()
        .unwrap_or(OsStr::new("root"))
        .to_string_lossy();
    let readable: String = readable.chars().take(20).collect();
    format!("{}.sock", super::slug(&readable, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(uid: u32) -> Env {
        Env {
            uid,
            user: "ann".into(),
            home: "/home/ann".into(),
            xdg_config_home: None,
            xdg_state_home: None,
            xdg_runtime_dir: None,
        }
    }

    #[test]
    fn a_users_state_is_in_the_users_state_directory_and_roots_in_var() {
        assert_eq!(
            env(1000).state_root(),
            Path::new("/home/ann/.local/state/roamhome")
        );
        let xdg = Env {
            xdg_state_home: Some("/s".into()),
            ..env(1000)
        };
        assert_eq!(xdg.state_root(), Path::new("/s/roamhome"));
        assert_eq!(env(0).state_root(), Path::new("/var/lib/roamhome"));
    }

    #[test]
    fn sockets_are_found_whatever_the_environment_says() {
        let xdg = Env {
            xdg_runtime_dir: Some("/tmp/x".into()),
            ..env(1000)
        };
        let without = env(1000).runtime_dirs();
        let with = xdg.runtime_dirs();
        assert_eq!(with[0], Path::new("/tmp/x/roamhome"));
        assert_eq!(with[1..], without[..]);
        let root = Env { uid: 0, ..xdg };
        assert_eq!(root.runtime_dirs(), [Path::new("/run/roamhome/0")]);
    }

    #[test]
    fn templates_are_filled_in() {
        let env = env(1000);
        assert_eq!(
            env.fill_in("{user}@nas:/homes/{user}"),
            "ann@nas:/homes/ann"
        );
        assert_eq!(env.fill_in("~/.ssh/id"), "/home/ann/.ssh/id");
        assert_eq!(env.fill_in("/keys/{uid}{other}"), "/keys/1000{other}");
    }

    #[test]
    fn socket_names_are_short_and_distinct() {
        let long = format!("/x/{}", "y".repeat(200));
        let names =
            ["/", "/home/ann", "/mnt/ann", &long].map(|p| control_socket_name(Path::new(p)));
        assert!(names[1].starts_with("ann-") && names[1] != names[2]);
        assert!(
            names
                .iter()
                .all(|name| name.len() <= 40 && !name.contains('/'))
        );
    }
}
