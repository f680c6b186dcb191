//! What clients that have nothing to do cost a server: many engines with real connections in one process, and the CPU
//! time and memory of all processes that the sshd started for them.
//!
//! Usage: idle-clients PORT IDENTITY KNOWN_HOSTS DIRECTORY SSHD_PID [CLIENTS]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use async_trait::async_trait;
use roamhome::clock;
use roamhome::engine::{Connect, Engine, EngineOptions, LinkError, Scope};
use roamhome::remote::{self, ConnectOptions, Remote, Target};
use roamhome::replica::Replica;
use tokio::runtime::Runtime;

/// Directories of each home, and files in each.
const DIRS: usize = 50;
const FILES: usize = 10;
/// How long nothing is asked.
const IDLE: Duration = Duration::from_secs(60);
const PASSES: usize = 3;
const EVERYTHING: Scope = Scope::Full {
    now: true,
    force_guard: false,
};

struct ToServer {
    target: Target,
    options: ConnectOptions,
}

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        let connected = remote::connect(&self.target, &self.options).await;
        connected.map_err(|error| LinkError {
            message: error.to_string(),
            remedy: String::new(),
            needs_person: error.needs_person(),
        })
    }
}

/// What the processes below one have used so far: how many they are, CPU seconds, and KiB of memory that is theirs.
#[derive(Clone, Copy, Default)]
struct Used {
    processes: usize,
    cpu: f64,
    memory_kib: u64,
}

fn used_below(root: u32) -> Used {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        let number = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        parents.push((pid, number(1) as u32, number(11) + number(12)));
    }
    let mut below = vec![root];
    let mut used = Used::default();
    let mut next = 0;
    while next < below.len() {
        for (pid, parent, ticks) in &parents {
            if *parent == below[next] {
                below.push(*pid);
                used.processes += 1;
                used.cpu += *ticks as f64 / 100.0;
                used.memory_kib += private_kib(*pid);
            }
        }
        next += 1;
    }
    used
}

fn private_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = rollup.lines().filter(|line| line.starts_with("Pss:"));
    lines
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

fn make_home(home: &Path) -> std::io::Result<()> {
    for dir in 0..DIRS {
        let dir = home.join(format!("d{dir}"));
        fs::create_dir_all(&dir)?;
        for file in 0..FILES {
            fs::write(dir.join(format!("f{file}")), b"content")?;
        }
    }
    Ok(())
}

/// An engine that has looked at its home once.
fn start(runtime: &Runtime, state: &Path, connector: ToServer) -> Result<Engine, Box<dyn Error>> {
    let replica = Arc::new(Replica::open(state, clock::now())?);
    let options = EngineOptions {
        reconcile_interval: Duration::from_secs(86_400),
        ..EngineOptions::new(Arc::new(clock::now), 0, 0)
    };
    let engine = Engine::start(runtime.handle(), replica, Arc::new(connector), options)?;
    runtime.block_on(engine.settled_link(Duration::from_secs(30)));
    pass(runtime, &engine)?;
    Ok(engine)
}

fn pass(runtime: &Runtime, engine: &Engine) -> Result<(), Box<dyn Error>> {
    let passed = runtime.block_on(engine.pass(EVERYTHING));
    passed.map_err(|error| error.to_string())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [port, identity, known_hosts, dir, sshd, rest @ ..] = &args[..] else {
        return Err(
            "usage: idle-clients PORT IDENTITY KNOWN_HOSTS DIRECTORY SSHD_PID [CLIENTS]".into(),
        );
    };
    let clients: usize = rest.first().map_or(Ok(200), |clients| clients.parse())?;
    let (sshd, dir): (u32, PathBuf) = (sshd.parse()?, dir.into());
    let runtime = Runtime::new()?;
    let options = ConnectOptions {
        identities: vec![identity.into()],
        default_identities: false,
        agent: false,
        known_hosts: vec![known_hosts.into()],
        ..ConnectOptions::default()
    };
    let before = used_below(sshd);
    let mut engines = Vec::new();
    for number in 0..clients {
        let home = dir.join(format!("home{number}"));
        make_home(&home)?;
        let target = Target {
            user: None,
            host: "127.0.0.1".into(),
            port: port.parse()?,
            path: home.to_string_lossy().into_owned(),
        };
        let connector = ToServer {
            target,
            options: options.clone(),
        };
        let engine = start(&runtime, &dir.join(format!("state{number}")), connector)?;
        engines.push(engine);
    }
    thread::sleep(Duration::from_secs(5));
    let up = used_below(sshd);
    let n = clients as f64;
    println!("idle clients: {clients}, each of {DIRS} directories with {FILES} files, 4 channels");
    println!(
        "processes of the server for each: {:.1}",
        up.processes as f64 / n
    );
    println!(
        "memory of the server for each: {:.1} MiB",
        up.memory_kib as f64 / n / 1024.0
    );
    println!(
        "CPU time of the server for each login and first pass: {:.1} ms",
        (up.cpu - before.cpu) / n * 1000.0
    );
    thread::sleep(IDLE);
    let idle = used_below(sshd);
    let minutes = IDLE.as_secs_f64() / 60.0;
    println!(
        "CPU time of the server for each in an idle minute: {:.2} ms",
        (idle.cpu - up.cpu) / n / minutes * 1000.0
    );
    for engine in engines.iter().cycle().take(PASSES * clients) {
        pass(&runtime, engine)?;
    }
    let passed = used_below(sshd);
    let each = (passed.cpu - idle.cpu) / n / PASSES as f64 * 1000.0;
    println!(
        "CPU time of the server for a pass: {each:.2} ms, {:.3} ms for a directory",
        each / (DIRS + 1) as f64
    );
    engines.iter().for_each(Engine::stop);
    Ok(())
}
