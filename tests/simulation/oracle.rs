//! What must hold when everything has come to rest.

use std::collections::BTreeMap;
use std::rc::Rc;

use roamhome::engine::PassReport;
use roamhome::remote::layout;
use roamhome::remote::memory::Item;
use roamhome::replica::{ReplicaError, View};
use roamhome::tree::Kind;

use super::machine::Machine;
use super::programs::Shown;
use super::world::{World, inside, is_kept, look};

/// Passes of each machine until nothing is left to do; more than this is a stall.
const ROUNDS: usize = 15;

/// Lets everything come to rest and tells what is wrong then.
pub(super) async fn judge(world: &World) -> Result<(), String> {
    world.broken()?;
    world.heal().await;
    close_all(world)?;
    settle(world).await?;
    converged(world).await?;
    world.is_as_left(&"the end");
    world.broken()?;
    nothing_lost(world)?;
    // What is kept for a while because it may still be needed goes.
    world.clock.advance(2 * 86_400);
    settle(world).await?;
    converged(world).await?;
    nothing_lost(world)?;
    tidy(world)
}

/// No program has a file open any more.
fn close_all(world: &World) -> Result<(), String> {
    for machine in world.machines.borrow().iter() {
        while let Some((_, content)) = machine.close().map_err(|error| error.to_string())? {
            world.closed(machine, &content);
        }
    }
    world.broken()
}

async fn settle(world: &World) -> Result<(), String> {
    let machines = world.machines.borrow().clone();
    let mut last = Vec::new();
    let mut quiet_before = false;
    for _ in 0..ROUNDS {
        last.clear();
        let mut quiet = true;
        for machine in &machines {
            machine.online().await;
            let mut report = machine.pass(look(false)).await;
            if world.may_ask()
                && report
                    .as_ref()
                    .is_ok_and(|report| !report.guards.is_empty())
            {
                quiet = false;
                report = machine.pass(look(true)).await;
            }
            let report = report.map_err(|error| error.to_string());
            quiet &= matches!(&report, Ok(PassReport { done: 0, failed: 0, waiting: 0, guards, .. }) if guards.is_empty());
            last.push(report);
        }
        // Twice: a pass that began by itself may have done what the one after it did not find any more.
        if std::mem::replace(&mut quiet_before, quiet) && quiet {
            return machines.iter().try_for_each(clean);
        }
    }
    let left: String = machines
        .iter()
        .filter_map(|machine| clean(machine).err())
        .collect();
    Err(format!("it does not settle: {last:?}{left}"))
}

fn clean(machine: &Rc<Machine>) -> Result<(), String> {
    let left = |view: &View<'_>| {
        let dirty = view.dirty(usize::MAX)?;
        let seen = view.observations()?;
        Ok::<_, ReplicaError>((dirty, seen, view.problems()?, view.intents()?))
    };
    let (dirty, seen, problems, intents) = machine.replica.view(left).unwrap();
    if dirty.is_empty() && seen.is_empty() && problems.is_empty() && intents.is_empty() {
        return Ok(());
    }
    Err(format!(
        "\n{}: left: dirty {dirty:?}, seen {seen:?}, problems {problems:?}, intents {intents:?}",
        machine.disk.path().display()
    ))
}

async fn converged(world: &World) -> Result<(), String> {
    let tree = world.server.tree();
    let theirs = tree.iter().filter(|(path, _)| !layout::is_ours(path));
    let shown = |item: &Item| Shown {
        kind: item.stat.kind,
        mode: item.stat.mode,
        size_and_secs: (item.stat.kind == Kind::File).then_some((item.stat.size, item.stat.mtime)),
        data: item.data.clone(),
    };
    let server: BTreeMap<String, Shown> = theirs
        .map(|(path, item)| (path.to_string(), shown(item)))
        .collect();
    for (path, shown) in &server {
        if shown.kind == Kind::File {
            world.expect_known(&shown.data, path);
        }
    }
    let machines = world.machines.borrow().clone();
    for machine in &machines {
        let here = machine
            .tree()
            .await
            .map_err(|error| format!("the tree cannot be read: {error}"))?;
        if here != server {
            let brief = |tree: &BTreeMap<String, Shown>| {
                tree.iter()
                    .map(|(path, shown)| {
                        let Shown { kind, mode, .. } = shown;
                        let (looks, len) = (shown.size_and_secs, shown.data.len());
                        format!("\n  {path} {kind:?} {mode:o} {looks:?} {len}")
                    })
                    .collect::<String>()
            };
            return Err(format!(
                "{} differs:{}\nserver:{}",
                machine.disk.path().display(),
                brief(&here),
                brief(&server)
            ));
        }
    }
    Ok(())
}

fn nothing_lost(world: &World) -> Result<(), String> {
    let tree = world.server.tree();
    let mut reachable: Vec<Vec<u8>> = tree
        .iter()
        .filter(|(path, _)| is_kept(path))
        .map(|(_, item)| item.data.clone())
        .collect();
    for machine in world.machines.borrow().iter() {
        reachable.extend(machine.backups());
    }
    let history = world.history.borrow();
    let lost = history
        .must_be()
        .find(|(_, content)| !reachable.contains(content));
    if let Some(((length, number), _)) = lost {
        let which = match number {
            0 => String::new(),
            _ => format!(", the {number}. after the first,"),
        };
        return Err(format!("the content of {length} bytes{which} is lost"));
    }
    Ok(())
}

fn tidy(world: &World) -> Result<(), String> {
    let tree = world.server.tree();
    let below = |dir| tree.keys().filter(move |path| inside(path, &dir));
    let staged: Vec<_> = below(layout::staging()).map(ToString::to_string).collect();
    if !staged.is_empty() {
        return Err(format!("left in staging: {staged:?}"));
    }
    let counters: Vec<_> = below(layout::feed()).map(ToString::to_string).collect();
    if counters.len() > world.machines.borrow().len() && !world.may_ask() {
        return Err(format!("left in feed: {counters:?}"));
    }
    let aside = below(layout::trash()).chain(below(layout::backups()));
    let unknown: Vec<_> = aside
        .filter(|path| layout::Aside::parse(path.names().last().unwrap()).is_none())
        .map(ToString::to_string)
        .collect();
    if !unknown.is_empty() {
        return Err(format!("kept under no name of ours: {unknown:?}"));
    }
    // A close that is made to fail closes nothing.
    if !world.failed_requests() && world.server.open_files() > 0 {
        return Err(format!("{} files are left open", world.server.open_files()));
    }
    Ok(())
}
