//! The renames that publish a database with all that belongs to it, and what is made sure before and after.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, join, join_all};

use super::super::keep;
use super::super::options::Publish;
use super::super::scan::ScanError;
use super::super::shared::{SecondName, Shared, lock};
use super::apart::note_gone;
use super::set::Part;
use super::{Pushed, Uploaded, discard, look};
use crate::remote::{Remote, RemoteError, Session};
use crate::sync::Keep;
use crate::tree::{Place, Version};

/// Gives the version of the database that is about to be replaced a second name, and the new one as well, as
/// where a single file is replaced; `false` if it has to be moved aside.
pub(super) async fn link_main(
    shared: &Shared,
    remote: &Remote,
    places: &[Place],
    parts: &[Part],
) -> Result<bool, RemoteError> {
    let features = remote.features();
    let possible =
        shared.options.publish == Publish::Link && features.hardlink && features.posix_rename;
    let main = parts.iter().find(|part| part.is_main(places));
    let Some(Part {
        target,
        kept,
        upload: Some(upload),
        ..
    }) = main.filter(|main| possible && main.expected().is_some())
    else {
        return Ok(false);
    };
    let session = remote.bulk().as_ref();
    let second = keep::second_path(shared, upload.sent.node.id, upload.number);
    let linked = join(
        session.hardlink(target, kept),
        session.hardlink(&upload.staged, &second),
    );
    match linked.await {
        (Ok(()), Ok(())) => Ok(true),
        (Err(error), _) | (_, Err(error)) if error.is_link_loss() => Err(error),
        _ => {
            discard(session, kept).await?;
            discard(session, &second).await?;
            Ok(false)
        }
    }
}

/// The renames, in the order in which they leave the least harm if the link breaks between any two of them.
fn renames<'a>(
    session: &'a dyn Session,
    places: &[Place],
    parts: &'a [Part],
    by_link: bool,
) -> Vec<(usize, BoxFuture<'a, Result<(), RemoteError>>)> {
    let mut all = Vec::new();
    let (main, companions): (Vec<_>, Vec<_>) = parts
        .iter()
        .enumerate()
        .partition(|(_, part)| part.is_main(places));
    let aside = |(n, part): &(usize, &'a Part)| {
        let part = *part;
        part.expected()
            .map(|_| (*n, session.rename(&part.target, &part.kept).boxed()))
    };
    let named = |(n, part): &(usize, &'a Part)| {
        let part = *part;
        let upload = part.upload.as_ref()?;
        Some((*n, session.rename(&upload.staged, &part.target).boxed()))
    };
    all.extend(companions.iter().filter_map(aside));
    for one in &main {
        match (&one.1.upload, by_link) {
            (Some(upload), true) => {
                let over = session.posix_rename(&upload.staged, &one.1.target);
                all.push((one.0, over.boxed()));
            }
            _ => all.extend(aside(one).into_iter().chain(named(one))),
        }
    }
    all.extend(companions.iter().filter_map(named));
    all
}

/// All renames without waiting for any, and a look at what they left.
pub(super) async fn burst(
    shared: &Arc<Shared>,
    session: &dyn Session,
    places: &[Place],
    parts: &[Part],
    by_link: bool,
) -> Result<Vec<Pushed>, ScanError> {
    let (of, renames): (Vec<_>, Vec<_>) =
        renames(session, places, parts, by_link).into_iter().unzip();
    let looks = join(
        join_all(parts.iter().map(|part| look(session, &part.target))),
        join_all(parts.iter().map(|part| look(session, &part.kept))),
    );
    let (renamed, (seen, kept)) = join(join_all(renames), looks).await;
    let mut failed = vec![None; parts.len()];
    for (part, outcome) in of.into_iter().zip(renamed) {
        match outcome {
            Err(error) if error.is_link_loss() => return Err(error.into()),
            Err(error) => failed[part] = Some(error),
            Ok(()) => {}
        }
    }
    let mut pushed = Vec::new();
    for (((part, seen), kept), failed) in parts.iter().zip(seen).zip(kept).zip(failed) {
        let seen = seen?;
        settle_kept(shared, session, part, kept?).await?;
        if let Some(error) = &failed {
            tracing::warn!(path = %part.target, %error, "a part of a database could not be published");
        }
        pushed.push(match (&part.upload, seen) {
            (Some(upload), Some(seen)) if failed.is_none() => {
                if by_link && part.is_main(places) {
                    remember_second(shared, session, part, upload, &seen).await?;
                }
                upload.published(seen)
            }
            (None, None) => {
                if let Some(expected) = part.expected() {
                    note_gone(shared, &part.step.place, expected)?;
                }
                Pushed::Done(None)
            }
            (_, seen) => Pushed::Saw(seen),
        });
    }
    Ok(pushed)
}

/// What was replaced goes, or stays as what it is: a version that nobody expected there is a backup.
async fn settle_kept(
    shared: &Shared,
    session: &dyn Session,
    part: &Part,
    kept: Option<Version>,
) -> Result<(), RemoteError> {
    let (Some(kept), Some(expected)) = (kept, part.expected()) else {
        return Ok(());
    };
    if !expected.same(&kept) {
        let theirs = keep::raced_path(shared, &part.target);
        tracing::warn!(path = %part.target, backup = %theirs, "somebody changed it while it was replaced; their version is a backup");
        if let Err(error) = session.rename(&part.kept, &theirs).await {
            tracing::info!(%error, backup = %part.kept, "it is kept as one that was replaced");
        }
        return Ok(());
    }
    match part.keep() {
        Keep::Replaced if !shared.options.keep_replaced => discard(session, &part.kept).await,
        _ => Ok(()),
    }
}

/// Notes the second name of the database, so that it goes when the database was seen in place.
async fn remember_second(
    shared: &Shared,
    session: &dyn Session,
    part: &Part,
    upload: &Uploaded,
    seen: &Version,
) -> Result<(), RemoteError> {
    let name = SecondName {
        path: keep::second_path(shared, upload.sent.node.id, upload.number),
        version: seen.clone(),
    };
    let older = lock(&shared.second_names).insert(part.step.place.clone(), name);
    match older {
        Some(older) => discard(session, &older.path).await,
        None => Ok(()),
    }
}
