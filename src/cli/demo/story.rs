//! What the demo shows, scene by scene. Each scene checks what it claims, and waits for nothing but commands.

use super::stage::{Stage, untold};
use crate::control::Failure;

/// The set-up: one server, one home, two machines.
pub(super) async fn open(stage: &mut Stage) -> Result<(), Failure> {
    stage.say(
        "An SFTP server, here on loopback, serves one ordinary directory: server/.\n\
         Two machines mount it as their home. Each has a replica of its own.",
    );
    stage.mount("laptop").await?;
    stage.mount("desktop").await?;
    stage.pause();
    Ok(())
}

/// All scenes that leave both machines mounted.
pub(super) async fn tell(stage: &Stage) -> Result<(), Failure> {
    a_file_travels(stage).await?;
    the_laptop_works_on_offline(stage).await?;
    both_change_one_file(stage).await?;
    a_directory_moves(stage).await?;
    a_deleted_file_comes_back(stage).await
}

async fn a_file_travels(stage: &Stage) -> Result<(), Failure> {
    stage.say(
        "1. A file travels. It is sent a second after its last change; `flush` does not wait for that,\n\
         and returns when all is on the server.",
    );
    stage.run("echo 'Buy milk.' > laptop/notes.txt").await?;
    stage.run("roamhome flush laptop").await?;
    stage.say("On the server it is a plain file.");
    stage.see("cat server/notes.txt", "Buy milk.").await?;
    stage.say("Other machines look every few minutes; `reconcile` looks now.");
    stage.run("roamhome reconcile desktop").await?;
    stage.see("cat desktop/notes.txt", "Buy milk.").await?;
    stage.pause();
    Ok(())
}

async fn the_laptop_works_on_offline(stage: &Stage) -> Result<(), Failure> {
    stage.say("2. The laptop loses its network, and works on from its replica.");
    stage.see("roamhome offline laptop", "offline").await?;
    stage.see("cat laptop/notes.txt", "Buy milk.").await?;
    stage
        .run("mkdir laptop/trip && echo 'Day 1: rain.' > laptop/trip/diary.txt")
        .await?;
    stage.run("chmod 600 laptop/trip/diary.txt").await?;
    stage
        .see(
            "roamhome status laptop | grep -E 'link|unsent'",
            "2 changes",
        )
        .await?;
    stage.pause();
    Ok(())
}

async fn both_change_one_file(stage: &Stage) -> Result<(), Failure> {
    stage.say(
        "3. Both machines change the same file: first the laptop, still offline, then the desktop.\n\
         (`touch` makes the laptop's change ten minutes old, so that nobody has to wait.)",
    );
    stage
        .run("echo 'Buy milk and bread.' > laptop/notes.txt")
        .await?;
    stage
        .run("touch -d '10 minutes ago' laptop/notes.txt")
        .await?;
    stage
        .run("echo 'Buy milk and cheese.' > desktop/notes.txt")
        .await?;
    stage.run("roamhome flush desktop").await?;
    stage.say("The laptop is back. The newest version wins, on both machines ...");
    let link = stage.run("roamhome online laptop").await?;
    if link != "online\n" {
        return Err(untold("the laptop is not online"));
    }
    stage.run("roamhome reconcile laptop").await?;
    stage
        .see("cat laptop/notes.txt", "Buy milk and cheese.")
        .await?;
    stage.run("roamhome reconcile desktop").await?;
    stage
        .see("cat desktop/notes.txt", "Buy milk and cheese.")
        .await?;
    stage
        .see("cat desktop/trip/diary.txt", "Day 1: rain.")
        .await?;
    stage.say("... and the other one is kept, where `backups` finds it.");
    let list = stage
        .see("roamhome backups list --mount laptop", "notes.txt")
        .await?;
    let id = id_of(&list, "notes.txt")?;
    stage
        .see(
            &format!("roamhome backups show {id} --mount laptop"),
            "Buy milk and bread.",
        )
        .await?;
    stage.pause();
    Ok(())
}

async fn a_directory_moves(stage: &Stage) -> Result<(), Failure> {
    stage.say(
        "4. A directory with 100 photos is renamed: the server renames it, nothing is sent again.",
    );
    stage
        .run(
            "mkdir laptop/photos && for i in $(seq 100); do head -c 10000 /dev/urandom > laptop/photos/$i.jpg; done",
        )
        .await?;
    stage.run("roamhome flush laptop").await?;
    let before = stage.calls();
    stage.run("mv laptop/photos laptop/pictures").await?;
    stage.run("roamhome flush laptop").await?;
    let asked = stage.calls().since(&before);
    let renames = asked.of("rename") + asked.of("posix_rename");
    stage.say(&format!(
        "The server counted since `mv`: {renames} rename, {} bytes of content.",
        asked.bytes_written
    ));
    if renames != 1 || asked.bytes_written != 0 {
        let what = format!("moving a directory asked the server for {asked:?}");
        return Err(untold(&what));
    }
    stage.run("roamhome reconcile desktop").await?;
    stage.see("ls desktop/pictures | wc -l", "100").await?;
    stage.say("A file's content comes when it is first read.");
    stage
        .run("cmp laptop/pictures/1.jpg desktop/pictures/1.jpg")
        .await?;
    stage.pause();
    Ok(())
}

async fn a_deleted_file_comes_back(stage: &Stage) -> Result<(), Failure> {
    stage.say("5. What is deleted stays in the server's trash for a while.");
    stage.run("rm laptop/trip/diary.txt").await?;
    stage.run("roamhome flush laptop").await?;
    let list = stage
        .see("roamhome trash list --mount laptop", "trip/diary.txt")
        .await?;
    let id = id_of(&list, "trip/diary.txt")?;
    stage
        .run(&format!("roamhome trash restore {id} --mount laptop"))
        .await?;
    stage
        .see("cat laptop/trip/diary.txt", "Day 1: rain.")
        .await?;
    stage
        .see("ls -l laptop/trip/diary.txt", "-rw-------")
        .await?;
    stage.pause();
    Ok(())
}

/// The first column of the line about `path`.
fn id_of<'a>(list: &'a str, path: &str) -> Result<&'a str, Failure> {
    let line = list.lines().find(|line| line.contains(path));
    let id = line.and_then(|line| line.split_whitespace().next());
    id.ok_or_else(|| untold(&format!("{path} is not listed")))
}

/// Unmounts both.
pub(super) async fn close(stage: &Stage) -> Result<(), Failure> {
    stage.say("Unmounting sends what is left. The server keeps plain files, and .roamhome for trash and backups.");
    stage.run("roamhome umount laptop").await?;
    stage.run("roamhome umount desktop").await?;
    stage.see("ls -A server", "notes.txt").await?;
    Ok(())
}

/// Says what to try while both stay mounted.
pub(super) fn invite(stage: &Stage) {
    stage.say(&format!(
        "Both stay mounted while this program runs. Try them in another terminal:\n\
         \x20 cd {}\n\
         \x20 roamhome status laptop\n\
         Enter or Ctrl-C ends the demo and removes all of it.",
        stage.dir().display()
    ));
}
