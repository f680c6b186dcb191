//! The daemon is killed at any moment, as by the kernel's OOM killer: what a program was told is done, is done.
//!
//! The server's answer to an upload may die with the daemon. The next daemon knows its predecessor's work all the
//! same: nothing comes back that was removed since, and nothing older wins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::machine::{Machine, Site, assert_same};
use crate::support::mounted::is_mounted;

/// Machines that run side by side, and how often the daemon of each is killed.
const MACHINES: u64 = 4;
const KILLS: u64 = 25;

/// Random numbers, the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What a program does to its files.
#[derive(Debug, Clone)]
enum Step {
    Write {
        name: String,
        data: Vec<u8>,
        sync: bool,
    },
    Append {
        name: String,
        data: Vec<u8>,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
}

/// A program that remembers what it was told.
#[derive(Default)]
struct Writer {
    /// What is acknowledged.
    files: BTreeMap<String, Vec<u8>>,
    /// What was asked and not acknowledged: it may have happened, in part or whole.
    pending: Option<Step>,
    done: u64,
}

impl Writer {
    fn choose(&self, dice: &mut Dice) -> Step {
        let name = |dice: &mut Dice| format!("d{}/f{}", dice.roll(3), dice.roll(20));
        let known = |dice: &mut Dice| {
            let nth = dice.roll(self.files.len().max(1) as u64) as usize;
            self.files.keys().nth(nth).cloned()
        };
        let data = |dice: &mut Dice, max: u64| {
            let stamp = format!("{}:", self.done).into_bytes();
            let len = dice.roll(max) as usize;
            let byte = dice.roll(256) as u8;
            [stamp, vec![byte; len]].concat()
        };
        match (dice.roll(10), known(dice)) {
            (0, Some(name)) => Step::Remove { name },
            (1..=2, Some(from)) => Step::Rename {
                from,
                to: name(dice),
            },
            (3..=4, Some(name)) => Step::Append {
                name,
                data: data(dice, 5_000),
            },
            (roll, _) => {
                let max = if dice.roll(8) == 0 { 400_000 } else { 9_000 };
                Step::Write {
                    name: name(dice),
                    data: data(dice, max),
                    sync: roll == 5,
                }
            }
        }
    }

    /// Does it as far as the daemon lives.
    fn act(&mut self, root: &Path, step: Step) -> std::io::Result<()> {
        self.pending = Some(step.clone());
        match &step {
            Step::Write { name, data, sync } => put(File::create(root.join(name))?, data, *sync)?,
            Step::Append { name, data } => {
                put(
                    File::options().append(true).open(root.join(name))?,
                    data,
                    false,
                )?;
            }
            Step::Rename { from, to } => fs::rename(root.join(from), root.join(to))?,
            Step::Remove { name } => fs::remove_file(root.join(name))?,
        }
        self.pending = None;
        self.done += 1;
        match step {
            Step::Write { name, data, .. } => drop(self.files.insert(name, data)),
            Step::Append { name, data } => self.files.get_mut(&name).unwrap().extend(data),
            Step::Rename { from, to } => {
                let data = self.files.remove(&from).unwrap();
                self.files.insert(to, data);
            }
            Step::Remove { name } => drop(self.files.remove(&name)),
        }
        Ok(())
    }

    /// All that was acknowledged is there; of the step that was under way, what happened is taken over.
    fn verify(&mut self, machine: &Machine) {
        let root = &machine.home();
        let read = |name: &str| fs::read(root.join(name)).ok();
        match self.pending.take() {
            None => {}
            Some(Step::Write { name, data, .. }) => {
                let found = read(&name);
                let whole = found == self.files.get(&name).cloned();
                let part = found.as_ref().is_some_and(|found| data.starts_with(found));
                assert!(whole || part, "{name} holds neither the old nor the new");
                self.adopt(name, found);
            }
            Some(Step::Append { name, data }) => {
                let found = read(&name).unwrap();
                let old = &self.files[&name];
                let added = found.strip_prefix(&old[..]);
                let fits = added.is_some_and(|added| data.starts_with(added));
                assert!(fits, "{name} lost what was there before");
                self.adopt(name, Some(found));
            }
            Some(Step::Rename { from, to }) => {
                let found = (read(&from), read(&to));
                let before = (self.files.get(&from).cloned(), self.files.get(&to).cloned());
                let after = (None, before.0.clone());
                assert!(
                    found == before || (found == after && from != to),
                    "{from} to {to}"
                );
                self.adopt(from, found.0);
                self.adopt(to, found.1);
            }
            Some(Step::Remove { name }) => {
                let found = read(&name);
                assert!(found.is_none() || found.as_ref() == self.files.get(&name));
                self.adopt(name, found);
            }
        }
        let found = found_in(root);
        let brief = |data: Option<&Vec<u8>>| data.map(|data| (data.len(), stamp(data)));
        let names: BTreeSet<_> = self.files.keys().chain(found.keys()).collect();
        let wrong: Vec<_> = names
            .into_iter()
            .filter(|name| self.files.get(*name) != found.get(*name))
            .map(|name| (name, brief(self.files.get(name)), brief(found.get(name))))
            .collect();
        assert!(
            wrong.is_empty(),
            "name, acknowledged, found: {wrong:?}\n{}",
            machine.log_end()
        );
    }

    fn adopt(&mut self, name: String, found: Option<Vec<u8>>) {
        match found {
            Some(data) => drop(self.files.insert(name, data)),
            None => drop(self.files.remove(&name)),
        }
    }
}

/// The number of the step that wrote a content.
fn stamp(data: &[u8]) -> String {
    let end = data.iter().position(|byte| *byte == b':').unwrap_or(0);
    String::from_utf8_lossy(&data[..end]).into_owned()
}

/// All files of the writer that are there.
fn found_in(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for dir in ["d0", "d1", "d2"] {
        for entry in fs::read_dir(root.join(dir)).unwrap() {
            let name = format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy());
            // The passes go on meanwhile.
            if let Ok(data) = fs::read(root.join(&name)) {
                found.insert(name, data);
            }
        }
    }
    found
}

/// Writes, and closes with the answer that a drop would hide.
fn put(mut file: File, data: &[u8], sync: bool) -> std::io::Result<()> {
    file.write_all(data)?;
    if sync {
        file.sync_all()?;
    }
    Ok(nix::unistd::close(file)?)
}

/// A command that is not waited for, and may fail: its daemon is about to die.
fn start(machine: &Machine, command: &str) -> Child {
    let home = machine.home();
    let mut child: Command = machine.command(&[command.as_ref(), home.as_os_str()]);
    child
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Writes until the daemon is killed, comes back, and looks at what is left; again and again.
fn kill_again_and_again(site: &Site, seed: u64) {
    let home = site.path(&format!("server-{seed}"));
    fs::create_dir(&home).unwrap();
    let machine = site.machine_for(&format!("machine-{seed}"), &home);
    let mut dice = Dice(seed);
    machine.mount();
    for dir in ["d0", "d1", "d2", "elsewhere"] {
        fs::create_dir(machine.at(dir)).unwrap();
    }
    machine.flush();
    let mut writer = Writer::default();
    // One of them does not see the server before the end.
    let offline = seed == 1;
    if offline {
        machine.proxy.down();
    }
    for round in 0..KILLS {
        // Somebody else's work, for the passes that are killed.
        fs::write(home.join(format!("elsewhere/{round}")), vec![b'x'; 50_000]).unwrap();
        let over = AtomicBool::new(false);
        let mut commands = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut dice = Dice(seed * 1_000 + round);
                while !over.load(Ordering::Relaxed) {
                    let step = writer.choose(&mut dice);
                    if writer.act(&machine.home(), step).is_err() {
                        break;
                    }
                }
            });
            thread::sleep(Duration::from_millis(dice.roll(150)));
            commands.extend(match dice.roll(3) {
                0 => Some(start(&machine, "reconcile")),
                1 => Some(start(&machine, "flush")),
                _ => None,
            });
            thread::sleep(Duration::from_millis(dice.roll(250)));
            machine.kill9();
            over.store(true, Ordering::Relaxed);
        });
        for mut command in commands {
            command.wait().unwrap();
        }
        machine.mount();
        writer.verify(&machine);
    }
    machine.proxy.up();
    machine.ask("online");
    assert!(
        writer.done > KILLS * 10,
        "{} steps are no test",
        writer.done
    );
    machine.flush();
    machine.reconcile();
    machine.flush();
    writer.verify(&machine);
    assert_eq!(
        fs::read_dir(machine.at("elsewhere")).unwrap().count() as u64,
        KILLS
    );
    assert_same(&home, &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn what_was_acknowledged_survives_any_kill_of_the_daemon() {
    let site = Site::new();
    thread::scope(|scope| {
        for seed in 1..=MACHINES {
            let site = &site;
            scope.spawn(move || kill_again_and_again(site, seed));
        }
    });
}

#[test]
fn a_home_can_be_mounted_over_the_mount_that_a_dead_daemon_left() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    fs::write(machine.at("file"), "here").unwrap();
    for _ in 0..2 {
        machine.kill9();
        let error = fs::read_dir(machine.home()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
        machine.mount();
        assert_eq!(fs::read_to_string(machine.at("file")).unwrap(), "here");
    }
    machine.umount();
    assert!(!is_mounted(&machine.home()), "no dead mount is left below");
    machine.mount();
    machine.kill9();
    // Who does not want it again takes it away.
    machine
        .try_ask("umount")
        .assert(3, &["its daemon was gone"]);
    assert!(!is_mounted(&machine.home()));
    machine.check();
}
