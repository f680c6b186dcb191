//! What simulations found, each as the shortest story that showed it, with many lots: what a loss of power leaves
//! differs from one to the next.

use roamhome::remote::ErrorKind;
use roamhome::remote::memory::Trip;

use super::op::{Act, Away, Meddle, Mix, Op};
use super::plug::Death;
use super::run;

const LOTS: u64 = 12;

fn plays(machines: usize, story: &[Op]) {
    plays_with(LOTS, machines, story);
}

fn plays_with(lots: u64, machines: usize, story: &[Op]) {
    let mix = Mix {
        machines,
        ..Mix::default()
    };
    plays_in(mix, lots, story);
}

fn plays_in(mix: Mix, lots: u64, story: &[Op]) {
    for seed in 0..lots {
        let ended = run(seed, mix, story);
        assert_eq!(ended.verdict, Ok(()), "with lot {seed}");
    }
}

/// What a seed found, with the lots that it drew.
fn replays(seed: u64, story: &[Op]) {
    assert_eq!(run(seed, Mix::of(seed), story).verdict, Ok(()));
}

/// The answer to one of the requests is lost with which a pass sends what `before` wrote; then comes `after`.
fn plays_cut(before: &[Op], after: &[Op]) {
    for requests in 12..24 {
        let cut = [
            Op::Trip(requests, Trip::CutAfter),
            Op::Push(0),
            Op::Offline(0),
        ];
        plays(1, &[before, &cut, after].concat());
    }
}

/// A file is sent, the power goes, a program opens what is left of it; then comes `after`.
fn plays_torn_and_open(lots: u64, after: &[Op]) {
    let before = [
        write(0, "a"),
        Op::Sync(0),
        Op::Advance(100),
        append(0, "a"),
        Op::Push(0),
        POWER,
        Op::On(0, Act::Open("a".into())),
    ];
    plays_with(lots, 1, &[&before, after].concat());
}

fn write(who: usize, path: &str) -> Op {
    Op::On(who, Act::Write(path.into(), 0))
}

fn append(who: usize, path: &str) -> Op {
    Op::On(who, Act::Append(path.into()))
}

fn meddle(meddle: Meddle) -> Op {
    Op::Meddle(meddle)
}

/// One machine, and somebody else at work on the server.
fn meddled() -> Mix {
    Mix {
        machines: 1,
        meddle: true,
        ..Mix::default()
    }
}

const POWER: Op = Op::Die(0, Death::PowerLoss);

#[test]
fn an_intent_that_cannot_be_looked_for_is_not_written_over() {
    let refused = |kind| Op::Refuse("b".into(), kind);
    plays(
        1,
        &[
            refused(Some(ErrorKind::PermissionDenied)),
            write(0, "b"),
            Op::Sync(0),
            write(0, "b"),
            Op::Sync(0),
            Op::On(0, Act::Rename("b".into(), "a".into())),
        ],
    );
}

#[test]
fn the_first_file_that_is_emptied_after_a_start_begins_anew() {
    for death in [Death::Kill, Death::PowerLoss] {
        plays(
            1,
            &[
                write(0, "a"),
                Op::Sync(0),
                Op::Settle(0),
                Op::Die(0, death),
                write(0, "a"),
            ],
        );
    }
}

#[test]
fn a_file_that_is_being_emptied_when_the_power_goes_can_be_compared() {
    for events in (0..40).step_by(5) {
        plays(
            1,
            &[
                write(0, "a"),
                Op::Sync(0),
                Op::Settle(0),
                Op::DieAfter(0, events, Death::PowerLoss),
                write(0, "a"),
                Op::BackUp,
                append(0, "a"),
                Op::Sync(0),
                Op::RollBack,
            ],
        );
    }
}

#[test]
fn what_one_power_loss_left_and_was_removed_does_not_come_back_with_the_next() {
    replays(
        2_062_006,
        &[
            Op::On(0, Act::Mkdir("a".into())),
            Op::On(0, Act::Mkdir("b".into())),
            write(0, "a/a"),
            write(0, "a/b"),
            write(0, "b/c"),
            Op::Sync(0),
            append(0, "a/a"),
            Op::Push(0),
            POWER,
            Op::Offline(0),
            Op::DieAfter(0, 129, Death::PowerLoss),
            Op::On(0, Act::Write("b/c".into(), 5)),
            Op::Online(0),
            Op::Push(0),
            Op::Push(0),
        ],
    );
}

#[test]
fn what_was_open_when_the_power_went_never_takes_the_place_of_the_whole() {
    plays(
        1,
        &[
            write(0, "a"),
            Op::Sync(0),
            Op::On(0, Act::Open("a".into())),
            Op::On(0, Act::WriteLate),
            Op::Sync(0),
            POWER,
            Op::Push(0),
        ],
    );
}

#[test]
fn what_is_added_to_the_rest_of_a_file_does_not_replace_the_whole() {
    for events in (0..160).step_by(16) {
        plays(
            1,
            &[
                write(0, "a"),
                Op::DieAfter(0, events, Death::PowerLoss),
                Op::Sync(0),
                append(0, "a"),
                Op::Sync(0),
            ],
        );
    }
}

#[test]
fn a_link_to_what_was_fetched_sends_it_whole_or_not_at_all() {
    plays(
        2,
        &[
            write(1, "a"),
            Op::Sync(1),
            Op::Sync(0),
            Op::On(0, Act::Link("a".into(), "b".into())),
            Op::Push(0),
            POWER,
            Op::Sync(0),
        ],
    );
}

#[test]
fn what_was_synced_is_there_although_it_was_committed_before() {
    plays(
        1,
        &[
            Op::Offline(0),
            write(0, "a"),
            Op::Commit(0),
            Op::On(0, Act::Fsync("a".into())),
            POWER,
        ],
    );
}

#[test]
fn what_was_being_sent_and_got_another_name_is_not_trusted_after_a_power_loss() {
    plays_cut(
        &[write(0, "a")],
        &[
            Op::On(0, Act::Rename("a".into(), "b".into())),
            Op::Commit(0),
            POWER,
            Op::Online(0),
            Op::Sync(0),
        ],
    );
}

#[test]
fn what_was_sent_and_did_not_reach_the_disk_shows_what_the_server_has() {
    plays_cut(
        &[write(0, "a"), Op::Sync(0), Op::Settle(0), append(0, "a")],
        &[POWER, Op::Online(0), Op::Sync(0)],
    );
}

#[test]
fn what_was_sent_under_its_old_name_replaces_what_is_left_under_the_new_one() {
    plays_cut(
        &[
            write(0, "a"),
            write(0, "other"),
            Op::Sync(0),
            Op::Settle(0),
            append(0, "a"),
        ],
        &[
            Op::On(0, Act::Rename("a".into(), "b".into())),
            // The new name is on the disk, and nothing more of the content.
            Op::On(0, Act::Fsync("other".into())),
            POWER,
            Op::Online(0),
            Op::Sync(0),
            Op::Shows(0, "b".into()),
        ],
    );
}

#[test]
fn what_was_sent_before_does_not_come_back_beside_what_was_sent_last() {
    for milliseconds in 0..8 {
        plays(
            1,
            &[
                write(0, "a"),
                Op::Sync(0),
                write(0, "a"),
                Op::Settle(0),
                Op::Sync(0),
                write(0, "a"),
                Op::Push(0),
                Op::On(0, Act::Fsync("a".into())),
                Op::Sync(0),
                Op::Together(vec![(milliseconds, POWER)]),
            ],
        );
    }
}

#[test]
fn half_of_what_was_sent_is_not_taken_for_what_was_written_next() {
    plays_with(
        4 * LOTS,
        1,
        &[
            write(0, "a"),
            Op::On(0, Act::Fsync("a".into())),
            Op::Sync(0),
            append(0, "a"),
            Op::Sync(0),
            write(0, "a"),
            POWER,
            Op::Sync(0),
        ],
    );
}

#[test]
fn what_a_file_takes_over_by_one_name_its_other_names_get_on_the_server() {
    plays(
        2,
        &[
            write(1, "a"),
            Op::On(1, Act::Link("a".into(), "b".into())),
            Op::Push(1),
            Op::Sync(0),
            Op::On(0, Act::Chmod("a".into(), 0o755)),
        ],
    );
}

#[test]
fn what_was_renamed_over_another_and_lost_is_what_it_was_itself() {
    plays(
        1,
        &[
            write(0, "a"),
            write(0, "b"),
            write(0, "other"),
            Op::Sync(0),
            Op::Settle(0),
            Op::Offline(0),
            write(0, "b"),
            Op::On(0, Act::Rename("b".into(), "a".into())),
            Op::On(0, Act::Fsync("other".into())),
            POWER,
        ],
    );
}

#[test]
fn what_somebody_renamed_is_kept_while_it_seems_to_stand_in_two_places() {
    let seen_twice = [
        meddle(Meddle::Write("b/c".into())),
        Op::Sync(0),
        meddle(Meddle::Rename("b".into(), "c".into())),
        meddle(Meddle::Write("b/a".into())),
        Op::Refuse("b".into(), Some(ErrorKind::Failure)),
        Op::Sync(0),
        write(0, "c/c"),
    ];
    plays_in(meddled(), LOTS, &seen_twice);
    plays_in(meddled(), LOTS, &[&seen_twice[..], &[Op::Push(0)]].concat());
}

#[test]
fn what_a_pass_removes_little_by_little_is_asked_for_when_it_is_much() {
    let mut story: Vec<Op> = ["a/x", "b/y", "c/z"]
        .map(|path| meddle(Meddle::Write(path.into())))
        .into();
    story.extend([
        Op::Sync(0),
        Op::On(0, Act::Exchange("a".into(), "b".into())),
    ]);
    story.extend(["a", "b", "c"].map(|path| meddle(Meddle::Remove(path.into()))));
    story.push(Op::Sync(0));
    let mix = Mix {
        guard: true,
        ..meddled()
    };
    plays_in(mix, LOTS, &story);
    // Somebody who is not done yet when a pass looks.
    let mut story: Vec<Op> = ["a", "b", "c", "d", "e", "f"]
        .map(|path| meddle(Meddle::Write(path.into())))
        .into();
    story.push(Op::Sync(0));
    for path in ["a", "b", "c", "d"] {
        story.extend([meddle(Meddle::Remove(path.into())), Op::Sync(0)]);
    }
    story.push(Op::Shows(0, "c".into()));
    plays_in(mix, 1, &story);
}

#[test]
fn a_name_that_another_file_took_does_not_give_its_content_to_the_others() {
    let read = Op::On(0, Act::Read("b".into()));
    let story = [
        write(0, "a"),
        Op::On(0, Act::Link("a".into(), "b".into())),
        Op::Push(0),
        POWER,
        Op::Advance(100),
        meddle(Meddle::Write("a".into())),
        read,
    ];
    plays_in(meddled(), LOTS, &story);
}

#[test]
fn nothing_is_done_where_it_is_not_known_whether_a_rename_was() {
    for requests in 0..40 {
        let mkdir = |path: &str| Op::On(0, Act::Mkdir(path.into()));
        let story = [
            mkdir("a"),
            mkdir("b"),
            write(0, "a/c"),
            write(0, "b/x"),
            Op::Sync(0),
            Op::On(0, Act::Exchange("b".into(), "a/c".into())),
            Op::Trip(requests, Trip::Fail(ErrorKind::Failure)),
            Op::Push(0),
            Op::Shows(0, "a/c/x".into()),
        ];
        plays_with(1, 1, &story);
    }
}

#[test]
fn what_a_power_loss_tore_does_not_replace_the_whole_that_got_another_mode() {
    let story = [
        write(0, "a"),
        Op::Sync(0),
        Op::Advance(100),
        write(0, "a"),
        Op::Push(0),
        meddle(Meddle::Chmod("a".into(), 0o700)),
        POWER,
        Op::Sync(0),
    ];
    plays_in(meddled(), 60, &story);
}

#[test]
fn what_a_power_loss_tore_does_not_replace_the_whole_that_got_another_time() {
    let story = [
        write(0, "a"),
        Op::Push(0),
        meddle(Meddle::Touch("a".into(), 1000)),
        POWER,
        Op::Push(0),
    ];
    plays_in(meddled(), 60, &story);
}

#[test]
fn what_a_power_loss_tore_does_not_replace_the_whole_while_a_program_has_it_open() {
    plays_torn_and_open(60, &[Op::Sync(0), POWER, Op::Push(0)]);
}

#[test]
fn what_was_written_to_the_rest_and_lost_again_does_not_replace_the_whole() {
    let late = Op::On(0, Act::WriteLate);
    plays_torn_and_open(200, &[late, Op::Commit(0), POWER, Op::Push(0)]);
}

#[test]
fn a_new_file_that_a_power_loss_emptied_is_not_what_was_renamed_away_from_there() {
    let rename = |from: &str, to: &str| Op::On(0, Act::Rename(from.into(), to.into()));
    let mkdir = |path: &str| Op::On(0, Act::Mkdir(path.into()));
    let story = [
        mkdir("a"),
        mkdir("b"),
        mkdir("a/a"),
        write(0, "b/c"),
        Op::Sync(0),
        Op::DieAfter(0, 145, Death::PowerLoss),
        write(0, "a/c"),
        rename("b/c", "a/b"),
        rename("a/b", "b/a"),
        Op::Settle(0),
        Op::Together(vec![(20, write(0, "b/c")), (0, Op::Sync(0))]),
        append(0, "b/a"),
    ];
    replays(2_105_874, &story);
}

#[test]
fn what_two_machines_sent_at_once_is_told_apart_though_it_looks_the_same() {
    let rewrite = |who| Op::On(who, Act::Rewrite("b".into()));
    let story = [
        meddle(Meddle::Write("b".into())),
        Op::Advance(10_000),
        Op::Crash,
        Op::Push(1),
        Op::Push(0),
        Op::Together(vec![(9, rewrite(2)), (29, Op::Cut), (0, Op::Sync(1))]),
        Op::Full(true),
        Op::Together(vec![(31, Op::Online(0)), (5, rewrite(1))]),
        Op::Advance(10_000),
        Op::Cut,
    ];
    replays(2_113_577, &story);
}

#[test]
fn who_was_replaced_by_what_looks_the_same_hears_of_it_from_who_kept_it() {
    let rewrite = |who| Op::On(who, Act::Rewrite("b".into()));
    let mix = Mix {
        machines: 2,
        alike: true,
        ..Mix::default()
    };
    for later in 0..40 {
        let story = [
            write(0, "b"),
            Op::Sync(0),
            Op::Sync(1),
            Op::On(1, Act::Read("b".into())),
            Op::Advance(100),
            rewrite(0),
            rewrite(1),
            Op::Together(vec![(later, Op::Push(0)), (0, Op::Push(1))]),
        ];
        plays_in(mix, 1, &story);
    }
}

#[test]
fn what_a_move_left_on_its_way_is_looked_for_where_the_way_station_is_gone() {
    let power = |who| Op::Die(who, Death::PowerLoss);
    let rename = |from: &str, to: &str| meddle(Meddle::Rename(from.into(), to.into()));
    let story = [
        Op::DieAfter(0, 30, Death::PowerLoss),
        Op::Commit(0),
        Op::On(2, Act::Mkdir("b/b".into())),
        Op::Together(vec![
            (13, Op::Sync(0)),
            (0, rename("b/b", "b/a/c")),
            (0, Op::Sync(3)),
        ]),
        Op::Together(vec![(2, Op::Sync(2)), (15, write(3, "a"))]),
        Op::Together(vec![(0, Op::Sync(3))]),
        meddle(Meddle::Write("c".into())),
        power(2),
        power(1),
        Op::On(1, Act::Exchange("a".into(), "c".into())),
        Op::Together(vec![(13, Op::Push(1))]),
        power(1),
        meddle(Meddle::Remove("c".into())),
        Op::Together(vec![(15, rename("c", "c/c/c")), (37, append(1, "a/c"))]),
        write(1, "b/a/a"),
        power(1),
    ];
    replays(2_001_320, &story);
}

#[test]
fn who_wrote_over_a_file_that_had_changed_places_loses_nothing() {
    let rename = |from: &str, to: &str| Op::On(3, Act::Rename(from.into(), to.into()));
    let story = [
        Op::On(0, Act::Mkdir("a".into())),
        Op::On(0, Act::Mkdir("b".into())),
        Op::Sync(0),
        Op::Sync(3),
        meddle(Meddle::Write("c/c".into())),
        rename("a", "b/a"),
        meddle(Meddle::Remove("b".into())),
        Op::Together(vec![(21, Op::Away(Away::Other))]),
        Op::Back,
        Op::Push(2),
        Op::Push(3),
        meddle(Meddle::Write("b/c".into())),
        Op::DieAfter(1, 61, Death::Kill),
        write(1, "a/c"),
        Op::On(3, Act::Exchange("b".into(), "c".into())),
        Op::Push(1),
        Op::Push(3),
        write(1, "b/c"),
    ];
    replays(2_512_535, &story);
}

#[test]
fn content_that_was_let_go_is_sought_under_the_name_that_is_left() {
    let story = [
        Op::On(0, Act::Mkdir("a".into())),
        Op::On(0, Act::Mkdir("b".into())),
        write(0, "a/a"),
        Op::Sync(0),
        Op::Sync(1),
        Op::On(1, Act::Link("a/a".into(), "b/a".into())),
        Op::Sync(1),
        Op::Evict(1),
        Op::On(0, Act::Rename("a/a".into(), "b/c".into())),
        Op::On(1, Act::Unlink("b/a".into())),
    ];
    replays(2_651_253, &story);
}

#[test]
fn what_goes_with_a_directory_that_was_moved_is_asked_about() {
    let story = [
        meddle(Meddle::Write("a/a".into())),
        meddle(Meddle::Write("b".into())),
        Op::On(0, Act::Symlink("a/a".into(), "a/b".into())),
        meddle(Meddle::Write("a/c".into())),
        Op::Push(0),
        Op::Answer(0),
        Op::Die(0, Death::Kill),
        meddle(Meddle::Remove("a".into())),
        Op::Die(2, Death::PowerLoss),
        meddle(Meddle::Write("c/b".into())),
        Op::On(2, Act::Unlink("b".into())),
        Op::Push(0),
        POWER,
        Op::Answer(2),
        Op::On(0, Act::Mkdir("c/a".into())),
        Op::On(0, Act::Exchange("b".into(), "a".into())),
        Op::Push(0),
    ];
    replays(2_460_138, &story);
}

#[test]
fn content_that_was_let_go_comes_back_whatever_happens_meanwhile() {
    let read = Op::On(0, Act::Read("a".into()));
    let meanwhile = [
        POWER,
        Op::Die(0, Death::Kill),
        append(0, "a"),
        write(0, "a"),
        Op::On(0, Act::Rename("a".into(), "b".into())),
        Op::On(0, Act::Chmod("a".into(), 0o600)),
        Op::On(0, Act::Truncate("a".into())),
        meddle(Meddle::Write("a".into())),
        Op::Together(vec![
            (0, read.clone()),
            (0, Op::Evict(0)),
            (1, append(0, "a")),
        ]),
    ];
    for what in &meanwhile {
        for events in [0, 3, 6, 9, 40] {
            let story = [
                write(0, "a"),
                Op::Sync(0),
                Op::Advance(100),
                Op::Sync(0),
                Op::DieAfter(0, events, Death::PowerLoss),
                Op::Evict(0),
                what.clone(),
                read.clone(),
                Op::Sync(0),
                Op::Evict(0),
                read.clone(),
            ];
            plays_in(meddled(), 2, &story[..]);
        }
    }
}

#[test]
fn what_is_gone_from_both_of_its_places_was_not_renamed() {
    let refused = |kind| Op::Refuse("p".into(), kind);
    let story = [
        meddle(Meddle::Write("p/c/x".into())),
        meddle(Meddle::Write("p/c/y".into())),
        Op::Sync(0),
        meddle(Meddle::Rename("p/c".into(), "q/c".into())),
        refused(Some(ErrorKind::Failure)),
        Op::Sync(0),
        Op::Shows(0, "p/c/x".into()),
        Op::Shows(0, "q/c/x".into()),
        refused(None),
        meddle(Meddle::Remove("q/c".into())),
        // Its move is given up first, and what is in it looked at after.
        Op::On(0, Act::Rename("q/c".into(), "d".into())),
        Op::Sync(0),
        Op::Shows(0, "p/c/x".into()),
        Op::Shows(0, "d/x".into()),
    ];
    let mix = Mix {
        guard: true,
        ..meddled()
    };
    plays_in(mix, 1, &story);
}

#[test]
fn two_names_of_one_file_do_not_wait_for_each_other() {
    // One machine renames one name over the other, another touches the file, or writes another over the first name.
    let touched = [Op::On(2, Act::Touch("c".into(), -1000))];
    let replaced = [
        write(2, "new"),
        Op::On(2, Act::Touch("new".into(), -1000)),
        Op::On(2, Act::Rename("new".into(), "a/b".into())),
    ];
    for meanwhile in [&touched[..], &replaced] {
        let before = [
            Op::On(0, Act::Mkdir("a".into())),
            write(0, "a/b"),
            Op::Sync(0),
            Op::Sync(2),
            Op::On(2, Act::Link("a/b".into(), "c".into())),
            Op::Sync(2),
            Op::Sync(1),
            Op::Offline(1),
            Op::On(1, Act::Rename("a/b".into(), "c".into())),
        ];
        plays(3, &[&before, meanwhile, &[Op::Sync(2)]].concat());
    }
}
