//! Where the program's log goes: standard error, which for a daemon is `daemon.log` in its state directory.
//!
//! `ROAMHOME_LOG` (such as `debug` or `roamhome::engine=trace,info`) overrides the configured level. Content,
//! passwords and keys are never logged; paths are.

use tracing_subscriber::EnvFilter;

/// The environment variable that overrides the configured level.
pub const ENV: &str = "ROAMHOME_LOG";

/// Starts logging at `level`, or as `ROAMHOME_LOG` says. Later calls change nothing.
pub fn init(level: &str) {
    let filter = std::env::var(ENV)
        .ok()
        .filter(|value| !value.is_empty())
        .and_then(|value| EnvFilter::try_new(value).ok())
        .unwrap_or_else(|| EnvFilter::new(level));
    // An error means that a subscriber is there already, which is as good.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .try_init(),
    );
}

/// Whether `level` is a filter that `init` understands.
pub fn is_valid_level(level: &str) -> bool {
    !level.is_empty() && EnvFilter::try_new(level).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_told_from_nonsense() {
        assert!(is_valid_level("info"));
        assert!(is_valid_level("roamhome::engine=trace,warn"));
        assert!(!is_valid_level(""));
        assert!(!is_valid_level("roamhome=loudly"));
    }
}
