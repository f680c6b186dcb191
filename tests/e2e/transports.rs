//! The ways to a home besides our own SSH: the system's ssh, any program, and a directory of this machine.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal};

use super::login::{PASSPHRASE, Terminal, mount_command, password_server, run, said, works};
use crate::support::machine::{Machine, Said, Site, assert_same, eventually, needs_root};
use crate::support::mounted::is_mounted;

/// The processes whose command line holds `word`.
fn processes(word: &Path) -> Vec<Pid> {
    let word = word.to_str().unwrap();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let number = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let command = fs::read(format!("/proc/{number}/cmdline")).ok()?;
        let found = String::from_utf8_lossy(&command).contains(word);
        found.then(|| Pid::from_raw(number)).flatten()
    });
    numbers.collect()
}

/// A machine that goes by `ssh -F` with an own file, in which the server is called `nas`.
fn by_ssh(site: &Site, name: &str, more: &str) -> (Machine, PathBuf) {
    let mut machine = site.machine(name);
    machine.target = format!("nas:{}", site.home().display());
    let config = machine.disk("ssh_config");
    let common = format!(
        "User {}\nPort {}\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\n",
        site.sshd.user,
        machine.proxy.port,
        machine.identity.display(),
        machine.disk("known_hosts").display()
    );
    let text = format!("Host nas\nHostName 127.0.0.1\n{more}\nHost *\n{common}");
    fs::write(&config, text).unwrap();
    set(
        &machine,
        &format!(
            "transport = \"ssh\"\nssh_command = \"ssh -F '{}'\"\n",
            config.display()
        ),
    );
    (machine, config)
}

/// Adds to a machine's settings.
fn set(machine: &Machine, text: &str) {
    let file = machine.disk("config.toml");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, before + text).unwrap();
}

/// Mounts with nothing said on the command line but the home, its state and the settings.
fn mount_plainly(machine: &Machine) -> Said {
    let words = [
        OsStr::new("mount"),
        machine.target.as_ref(),
        machine.home().as_os_str(),
        "--state".as_ref(),
        machine.state().as_os_str(),
        "--config".as_ref(),
        machine.disk("config.toml").as_os_str(),
    ]
    .map(OsStr::to_owned);
    let words: Vec<_> = words.iter().map(|word| word.as_os_str()).collect();
    let mut command = machine.command(&words);
    said(command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()))
}

#[test]
fn what_ssh_config_says_of_a_host_holds() {
    let site = Site::new();
    let (machine, config) = by_ssh(&site, "m", "");
    mount_plainly(&machine).assert(0, &[]);
    assert_eq!(processes(&config).len(), 4, "one ssh for each session");
    works(&machine, &site.home());
    eventually("every ssh has ended", || processes(&config).is_empty());
}

#[test]
fn a_jump_and_a_shared_connection_work_and_end_with_the_mount() {
    let site = Site::new();
    let socket = site.path("cm-%n");
    let shared = format!("ControlMaster auto\nControlPath {}\n", socket.display());
    let jump = "ProxyJump jump\nHost jump\nHostName 127.0.0.1\n";
    let (machine, config) = by_ssh(&site, "m", &(shared + jump));
    // The jump's host is reached through the machine's network; the home's host from the jump.
    let text = fs::read_to_string(&config).unwrap();
    let direct = format!("Host nas\nPort {}\n", site.sshd.port);
    let known = fs::read_to_string(machine.disk("known_hosts")).unwrap();
    let (_, key) = known.split_once(' ').unwrap();
    let own = format!("[127.0.0.1]:{} {key}", site.sshd.port);
    fs::write(machine.disk("known_hosts"), known.clone() + &own).unwrap();
    fs::write(&config, direct + &text).unwrap();

    mount_plainly(&machine).assert(0, &[]);
    assert!(site.path("cm-nas").exists());
    fs::write(machine.at("file"), "sent").unwrap();
    machine.flush();
    machine.umount();
    assert_eq!(
        fs::read_to_string(site.home().join("file")).unwrap(),
        "sent"
    );
    eventually("every ssh has ended", || processes(&config).is_empty());
}

#[test]
fn no_ssh_outlives_a_lost_link_or_a_killed_daemon() {
    let site = Site::new();
    let (machine, config) = by_ssh(&site, "m", "");
    mount_plainly(&machine).assert(0, &[]);
    let before = processes(&config);
    machine.proxy.down();
    eventually("the loss is noticed", || {
        machine.status()["link"]["state"] != "online"
    });
    eventually("every ssh has ended", || {
        let now = processes(&config);
        before.iter().all(|pid| !now.contains(pid))
    });
    machine.proxy.up();
    machine.ask("online");
    fs::write(machine.at("file"), "sent").unwrap();
    machine.flush();

    machine.signal(Signal::KILL);
    eventually("every ssh has ended", || processes(&config).is_empty());
    machine
        .try_ask("umount")
        .assert(3, &["its daemon was gone"]);
    mount_plainly(&machine).assert(0, &[]);
    works(&machine, &site.home());
}

#[test]
fn each_failure_of_ssh_has_its_status() {
    let site = Site::new();
    let machine = site.machine("m");
    let flags = |more: &[&str]| {
        let mut flags = vec!["--transport", "ssh"];
        flags.extend(more);
        machine.try_mount(&flags)
    };
    let none = machine.disk("none");
    flags(&["--known-hosts", none.to_str().unwrap()]).assert(5, &["host key", "ssh"]);
    let other = machine.disk("other");
    roamhome::remote::generate_identity(&other, "x").unwrap();
    flags(&["--identity", other.to_str().unwrap()]).assert(6, &["Permission denied"]);
    flags(&["-o", "ssh_command=ssh -oBogus=1"]).assert(2, &["ssh_config"]);
    flags(&["-o", "ssh_command=/none/ssh"]).assert(2, &["/none/ssh", "ssh_command"]);
    flags(&["-o", "ssh_command="]).assert(2, &["set ssh_command"]);
    machine.proxy.down();
    flags(&[]).assert(4, &["cannot be reached"]);
    machine.proxy.up();
    assert!(!machine.state().exists());
    flags(&[]).assert(0, &[]);
    works(&machine, &site.home());
}

#[test]
fn ssh_asks_for_a_password_on_the_terminal_once() {
    let site = Site::new();
    let (server, machine) = password_server(&site);
    let mut command = mount_command(&machine, false);
    command.args(["--transport", "ssh"]);
    // Nobody is there to ask.
    said(&mut command).assert(6, &["Permission denied"]);
    let mut terminal = Terminal::run(&command);
    terminal.answer("password:", PASSPHRASE);
    let (status, shown) = terminal.end();
    assert_eq!(status, 0, "{shown}");
    assert_eq!(shown.matches("password:").count(), 1, "{shown}");
    assert_eq!(server.logins(), 4);
    fs::write(machine.at("file"), "sent").unwrap();
    machine.flush();
    // Nobody can be asked later, and the server is not bothered with empty passwords.
    machine.ask("offline");
    let before = server.attempts();
    machine.try_ask("online");
    eventually("a person is needed", || {
        machine.status()["link"]["state"] == "refused"
    });
    assert_eq!(server.attempts(), before);
    machine
        .try_run(&["umount", "--no-flush", machine.home().to_str().unwrap()])
        .assert(0, &[]);
}

#[test]
fn a_password_from_a_descriptor_is_told_to_ssh_each_time() {
    let site = Site::new();
    let (_server, machine) = password_server(&site);
    for (password, status) in [("wrong", 6), (PASSPHRASE, 0)] {
        let mut command = mount_command(&machine, false);
        let mut child = command
            .args(["--transport", "ssh", "--password-fd", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(format!("{password}\n").as_bytes()).unwrap();
        drop(input);
        Said::new(&child.wait_with_output().unwrap()).assert(status, &[]);
    }
    works(&machine, &site.home());
}

#[test]
fn any_program_that_speaks_sftp_carries_a_home() {
    let site = Site::new();
    let mut machine = site.machine("m");
    machine.target = format!("box:{}", site.home().display());
    machine
        .try_mount(&["--transport", "command"])
        .assert(2, &["set sftp_command"]);
    set(
        &machine,
        "transport = \"command\"\nsftp_command = \"sh -c 'echo no such box >&2; exit 1'\"\n",
    );
    mount_plainly(&machine).assert(4, &["no such box"]);
    let text = fs::read_to_string(machine.disk("config.toml")).unwrap();
    let text = text.replace(
        "sh -c 'echo no such box >&2; exit 1'",
        "nice /usr/lib/openssh/sftp-server",
    );
    fs::write(machine.disk("config.toml"), text).unwrap();
    mount_plainly(&machine).assert(0, &[]);
    works(&machine, &site.home());
}

/// A machine whose home is in a directory of its own disk.
fn local(site: &Site, name: &str, home: &Path) -> Machine {
    let mut machine = site.machine(name);
    machine.target = home.to_str().unwrap().to_owned();
    machine
}

#[test]
fn two_machines_share_a_home_on_a_disk_that_is_here() {
    let site = Site::new();
    let one = local(&site, "one", &site.home());
    let mut other = local(&site, "other", &site.home());
    other.target = format!("file:{}", site.home().display());
    one.mount();
    other.mount();
    let status = one.status();
    assert_eq!(status["server"], site.home().to_str().unwrap());
    fs::create_dir(one.at("dir")).unwrap();
    fs::write(one.at("dir/file"), "1").unwrap();
    std::os::unix::fs::symlink("file", one.at("dir/link")).unwrap();
    one.flush();
    other.reconcile();
    fs::rename(other.at("dir/file"), other.at("dir/renamed")).unwrap();
    fs::write(other.at("dir/renamed"), "22").unwrap();
    other.flush();
    one.reconcile();
    assert_same(&one.home(), &other.home());
    assert_same(&one.home(), &site.home());
    for machine in [&one, &other] {
        machine.umount();
        machine.check();
    }
}

/// The link is down, although the daemon was told to connect, and says why.
#[track_caller]
fn assert_away(machine: &Machine, says: &str) {
    machine.try_ask("online");
    let link = &machine.status()["link"];
    assert_eq!(link["state"], "offline", "{link}");
    let detail = link["detail"].as_str().unwrap();
    assert!(detail.contains(says), "{detail} lacks {says}");
}

#[test]
fn a_disk_that_is_taken_away_is_offline_and_never_empty() {
    needs_root("it mounts a disk");
    let site = Site::new();
    let disk = site.path("disk");
    fs::create_dir(&disk).unwrap();
    let image = site.path("image");
    run(Command::new("truncate").args(["-s", "16M"]).arg(&image));
    run(Command::new("mkfs.ext4").arg("-q").arg(&image));
    let plug = || {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&disk))
    };
    plug();
    let machine = local(&site, "m", &disk);
    machine.mount();
    fs::write(machine.at("file"), "1").unwrap();
    fs::create_dir(machine.at("dir")).unwrap();
    fs::write(machine.at("dir/file"), "2").unwrap();
    machine.flush();
    // Nobody keeps the disk busy.
    unmount(&disk, UnmountFlags::empty()).unwrap();
    machine.try_ask("reconcile");
    eventually("the loss is noticed", || {
        machine.status()["link"]["state"] == "offline"
    });
    assert_away(&machine, "is its disk mounted");
    // The mount point is there, and it is no empty home.
    assert_eq!(fs::read_to_string(machine.at("dir/file")).unwrap(), "2");
    fs::write(machine.at("offline"), "3").unwrap();
    fs::remove_dir(&disk).unwrap();
    assert_away(&machine, "it is not there");
    fs::create_dir(&disk).unwrap();
    // Another disk's file system is not ours either.
    mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), None).unwrap();
    assert_away(&machine, "no home in it");
    unmount(&disk, UnmountFlags::empty()).unwrap();
    assert_eq!(
        fs::read_dir(&disk).unwrap().count(),
        0,
        "nothing was put below the mount point"
    );

    plug();
    machine.ask("online");
    machine.flush();
    assert_same(&machine.home(), &disk);
    assert_eq!(fs::read_to_string(disk.join("offline")).unwrap(), "3");
    machine.umount();
    machine.check();
    unmount(&disk, UnmountFlags::empty()).unwrap();

    // A home that was here before comes up without its disk, a new one does not.
    machine.mount();
    assert_eq!(fs::read_to_string(machine.at("file")).unwrap(), "1");
    assert_away(&machine, "is its disk mounted");
    machine.umount();
    let mut new = site.machine("new");
    new.target = site.path("nothing").to_str().unwrap().to_owned();
    new.try_mount(&[])
        .assert(4, &["is not there", "plug its disk in"]);
}

#[test]
fn a_home_is_not_mounted_inside_of_itself() {
    let site = Site::new();
    let mut machine = site.machine("m");
    for home in [
        machine.disk(""),
        machine.home(),
        machine.home().join("below"),
    ] {
        machine.target = home.to_str().unwrap().to_owned();
        machine.try_mount(&[]).assert(8, &["lies in it"]);
    }
    assert!(!is_mounted(&machine.home()) && !machine.state().exists());
}
