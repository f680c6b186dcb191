//! Somebody else, in a thread: the kernel knows users by the thread.

use std::thread;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Two who are neither root nor each other.
pub(crate) const ANN: u32 = 54_001;
pub(crate) const BOB: u32 = 54_002;

/// Does `work` as the user `id`, whose own group has the same number, and who is in `groups` besides.
pub(crate) fn as_user<T: Send>(id: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    let became = || {
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    };
    let become_and_work = || {
        became().expect("only root can become somebody else");
        work()
    };
    thread::scope(|scope| scope.spawn(become_and_work).join().unwrap())
}
