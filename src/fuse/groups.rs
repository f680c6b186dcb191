//! The groups of who asks. The kernel tells their user and first group with each request, and the others nowhere but
//! in `/proc`. It may not show them, which is taken for none.

use std::fs;

use fuser::Request;

use crate::fs::Groups;

/// Before the groups in `/proc/PID/status`.
const LINE: &str = "Groups:";

/// All groups of who asks.
pub(super) fn of(request: &Request) -> Groups {
    if request.uid() == 0 {
        return Groups::All;
    }
    let status = fs::read_to_string(format!("/proc/{}/status", request.pid()));
    let mut groups = listed(&status.unwrap_or_default());
    groups.push(request.gid());
    Groups::Only(groups)
}

fn listed(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(LINE));
    let numbers = line.unwrap_or_default().split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_process_are_read_as_the_kernel_shows_them() {
        assert_eq!(
            listed("Name:\tx\nGid:\t1\t2\t3\t4\nGroups:\t4 27 1000 \nNgid:\t0\n"),
            [4, 27, 1000]
        );
        assert_eq!(listed("Groups:\t \n"), [] as [u32; 0]);
        assert_eq!(listed(""), [] as [u32; 0]);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let known = rustix::process::getgroups().unwrap();
        let known: Vec<u32> = known.into_iter().map(rustix::fs::Gid::as_raw).collect();
        assert_eq!(listed(&own), known);
    }
}
