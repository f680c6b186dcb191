//! Opening a file that is read by block: the server is asked whether it still shows the version that is opened. What another
//! machine wrote since the last pass is opened then, and not the old one, of which nothing more could be read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::super::Done;
use super::super::scan::ScanError;
use super::super::shared::{Shared, lock};
use super::replaced::take_over;
use super::{connection, for_mount, source};
use crate::tree::{Kind, NodeId, Version};

/// For so long nothing is asked again about a file: long enough for all who waited for the answer.
const FRESH: Duration = Duration::from_millis(200);
/// So many files are remembered.
const REMEMBERED: usize = 1024;

/// When the server was asked about files.
#[derive(Debug, Default)]
pub(in crate::engine) struct Looks(Mutex<HashMap<NodeId, Instant>>);

/// Whether the server was just asked about a file, or cannot be: what is here of it is read then.
pub(in crate::engine) fn is_current(shared: &Shared, id: NodeId) -> bool {
    let is_fresh = |at: &Instant| at.elapsed() < FRESH;
    shared.online().is_none() || lock(&shared.looks.0).get(&id).is_some_and(is_fresh)
}

/// The mount opens a file that is read by block.
pub(in crate::engine) fn look_for_mount(shared: &Arc<Shared>, id: NodeId, done: Done) {
    let work = async move |shared: Arc<Shared>| {
        let looked = look(&shared, id).await;
        let mut looks = lock(&shared.looks.0);
        if looks.len() >= REMEMBERED {
            looks.retain(|_, at| at.elapsed() < FRESH);
        }
        looks.insert(id, Instant::now());
        match looked {
            // Who reads will hear of it.
            Err(ScanError::Remote(error)) => {
                tracing::debug!(%error, "opened as it was");
                Ok(())
            }
            looked => looked,
        }
    };
    for_mount(shared, |shared| &shared.looking, id, done, work);
}

async fn look(shared: &Arc<Shared>, id: NodeId) -> Result<(), ScanError> {
    let Some((place, path, base)) = source(shared, id, &[])? else {
        return Ok(());
    };
    let remote = connection(shared, &path)?;
    let stat = remote.interactive().lstat(&path).await?;
    let now = Version::file(stat.size, stat.mtime, stat.mode);
    let is_same = (now.size, now.mtime) == (base.size, base.mtime);
    if stat.kind == Kind::File && !is_same {
        take_over(shared, id, &place, &now)?;
    }
    Ok(())
}
