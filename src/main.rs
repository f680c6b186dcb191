//! The `roamhome` program: only the way into [`roamhome::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    roamhome::cli::main()
}
