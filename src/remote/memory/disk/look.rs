//! A look at all there is, by inode instead of by path.

use super::{Disk, ROOT};
use crate::remote::Stat;
use crate::tree::{Kind, RelPath};

/// Who is shown paths, attributes, and contents or targets.
type See<'a> = dyn FnMut(&RelPath, Stat, &[u8]) + 'a;

impl Disk {
    /// Shows everything below the root, in no order.
    pub(in crate::remote::memory) fn look(&self, see: &mut See<'_>) {
        self.look_into(ROOT, &RelPath::root(), see);
    }

    fn look_into(&self, dir: u64, path: &RelPath, see: &mut See<'_>) {
        let children = self.inodes.get(&dir).map(|inode| &inode.children);
        for (name, id) in children.into_iter().flatten() {
            let (Ok(inode), Ok(stat)) = (self.inode(*id), self.stat(*id)) else {
                continue;
            };
            let path = path.join(name);
            let data = match inode.kind {
                Kind::Symlink => &inode.target,
                _ => &*inode.data,
            };
            see(&path, stat, data);
            self.look_into(*id, &path, see);
        }
    }
}
