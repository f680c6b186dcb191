//! What pam_exec tells of itself, in the environment: see pam_exec(8).
//!
//! The rest of the environment may be the user's (`~/.pam_environment`, sshd's `SetEnv`) and is not looked at, but for where
//! a Kerberos ticket is, which only a process of the account follows.

use std::ffi::OsString;

/// Which step of a login PAM takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PamType {
    /// Somebody proves who they are.
    Auth,
    /// A session begins.
    OpenSession,
    /// A session ends.
    CloseSession,
}

/// What PAM said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pam {
    /// Whose login it is.
    pub user: String,
    /// Which program it is for, as the file in `/etc/pam.d` is named.
    pub service: String,
    /// The step, if it is one of those that matter here.
    pub step: Option<PamType>,
    /// Where the Kerberos ticket of the login is, as somebody says, who may be anybody.
    pub ccache: Option<OsString>,
}

/// The service of `systemd --user`, which opens a session of its own for each user.
const MANAGER_SERVICE: &str = "systemd-user";

impl Pam {
    /// Out of the environment; none if PAM did not start this process.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Option<Self> {
        let (mut user, mut service, mut step, mut ccache) = (None, None, None, None);
        // pam_exec puts its own variables last. Of two with one name, the first may be the user's.
        for (name, value) in vars {
            if name == "KRB5CCNAME" {
                ccache = Some(value).filter(|name| !name.is_empty());
                continue;
            }
            let value = value.into_string().ok();
            match name.to_str() {
                Some("PAM_USER") => user = value,
                Some("PAM_SERVICE") => service = value,
                Some("PAM_TYPE") => step = value,
                _ => {}
            }
        }
        Some(Self {
            user: user?,
            service: service.unwrap_or_default(),
            step: match step.as_deref() {
                Some("auth") => Some(PamType::Auth),
                Some("open_session") => Some(PamType::OpenSession),
                Some("close_session") => Some(PamType::CloseSession),
                _ => None,
            },
            ccache,
        })
    }

    /// Whether the session is that of `systemd --user`.
    pub fn is_manager(&self) -> bool {
        self.service == MANAGER_SERVICE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Option<Pam> {
        Pam::from_env(vars.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn what_pam_says_comes_last_and_counts() {
        let pam = from(&[
            ("PAM_USER", "root"),
            ("PAM_TYPE", "auth"),
            ("PAM_SERVICE", "sshd"),
            ("PAM_TYPE", "open_session"),
            ("PAM_USER", "ann"),
        ])
        .unwrap();
        assert_eq!(pam.user, "ann");
        assert_eq!(pam.step, Some(PamType::OpenSession));
        assert!(!pam.is_manager());
    }

    #[test]
    fn whoever_is_not_started_by_pam_hears_so() {
        assert_eq!(from(&[("USER", "ann"), ("PAM_TYPE", "auth")]), None);
        let pam = from(&[("PAM_USER", "ann"), ("PAM_TYPE", "setcred")]).unwrap();
        assert_eq!(pam.step, None);
        assert!(
            from(&[("PAM_USER", "ann"), ("PAM_SERVICE", "systemd-user")])
                .unwrap()
                .is_manager()
        );
    }
}
