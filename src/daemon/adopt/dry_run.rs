//! What would come of it: names, sizes and times are read into a replica that is thrown away, and compared with the
//! server, to which nothing is written.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::super::lifecycle::engine_options;
use super::super::link::Connector;
use super::import::{home, problems, read};
use super::{AdoptRequest, Foretold, Watcher, failure, look, shown};
use crate::clock;
use crate::control::protocol::Progress;
use crate::control::{Code, Failure};
use crate::engine::{Connect, Engine, EngineOptions, LinkState};
use crate::fs::{Imported, Importing};
use crate::replica::Replica;
use crate::tree::Time;

/// Finds it out in the empty directory `dir`.
pub(super) fn foretell(
    runtime: &Runtime,
    request: &AdoptRequest,
    dir: &Path,
    main: Option<&Replica>,
    watcher: Watcher<'_>,
) -> Result<Foretold, Failure> {
    let connector = Arc::new(Connector::new(&request.access, &request.state_dir));
    runtime.block_on(connector.prepare())?;
    let replica = Arc::new(Replica::open(dir, clock::now()).map_err(failure::replica)?);
    let how = Importing {
        mounts: Some(&request.mounts),
        without_scoped: main.is_some(),
        without: main,
        without_content: true,
    };
    let size = look(request, Time(i64::MAX))?;
    let imported = read(&home(request, &replica)?, request, how, &size, watcher)?;
    watcher(&Progress {
        message: "looking at the server".into(),
        left_files: 0,
        left_bytes: 0,
    });
    let options = EngineOptions {
        only_look: true,
        ..engine_options(&request.access.config)
    };
    let connector: Arc<dyn Connect> = connector;
    let engine = Engine::start(runtime.handle(), replica, connector, options);
    let engine = engine.map_err(failure::replica)?;
    let foretold = runtime.block_on(ask(&engine, request, &imported));
    engine.stop();
    foretold
}

async fn ask(
    engine: &Engine,
    request: &AdoptRequest,
    imported: &Imported,
) -> Result<Foretold, Failure> {
    let link = engine
        .settled_link(request.access.config.fetch_timeout)
        .await;
    if link.state != LinkState::Online {
        let message = format!("{}: {}", request.access.target, link.state.detail());
        return Err(Failure::new(Code::Unreachable, message));
    }
    let plan = engine
        .dry_run()
        .await
        .map_err(|error| failure::pass(&error))?;
    if let Some(question) = plan.guards.first() {
        return Err(failure::guard(question));
    }
    Ok(Foretold {
        lines: plan.lines,
        sent: plan.foreseen.sent,
        sent_bytes: plan.foreseen.sent_bytes,
        compared: plan.foreseen.compared,
        taken: plan.foreseen.taken,
        conflicts: plan.foreseen.conflicts,
        files: imported.files,
        bytes: imported.bytes,
        mounts: shown(&imported.mounts),
        problems: problems(imported),
    })
}
