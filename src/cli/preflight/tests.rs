use std::os::unix::fs::symlink;

use super::*;

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn code<T>(result: Result<T, Failure>) -> Option<Code> {
    result.err().map(|failure| {
        assert!(!failure.message.is_empty());
        failure.code
    })
}

#[test]
fn mountinfo_is_read_with_its_escapes_and_optional_fields() {
    let text = b"\
22 1 0:21 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw
99 22 0:50 / /home/a\\040b\\134c rw,nosuid - fuse.roamhome ann@nas: rw
torn line
";
    let mounts = parse_mountinfo(text);
    assert_eq!(
        mounts,
        [
            Mount {
                point: "/".into(),
                fs_type: "ext4".into()
            },
            Mount {
                point: "/home/a b\\c".into(),
                fs_type: FS_TYPE.into()
            },
        ]
    );
    assert!(!read_mounts().unwrap().is_empty());
}

#[test]
fn a_missing_device_says_how_to_get_it() {
    let failure = check_fuse(Path::new("/nonexistent/fuse")).unwrap_err();
    assert_eq!(failure.code, Code::NoFuse);
    assert!(failure.remedy.unwrap().contains("modprobe fuse"));
    assert_eq!(
        code(check_helper(1000, "/nonexistent".as_ref())),
        Some(Code::NoFuse)
    );
    assert_eq!(code(check_helper(0, "/nonexistent".as_ref())), None);
}

#[test]
fn mount_points_are_empty_directories_that_nothing_is_mounted_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let at = |name: &str| root.join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/file"), "").unwrap();
    symlink("empty", at("link")).unwrap();
    let check = |name: &str, nonempty| check_mountpoint(&at(name), &[], nonempty);

    assert_eq!(check("empty", false), Ok(at("empty")));
    assert_eq!(check("link", false), Ok(at("empty")));
    assert_eq!(check("full", true), Ok(at("full")));
    for (name, expected) in [
        ("none", "mkdir -p"),
        ("full/file", "not a directory"),
        ("full", "not empty"),
    ] {
        let failure = check(name, false).unwrap_err();
        assert_eq!(failure.code, Code::Mountpoint);
        assert!(format!("{failure:?}").contains(expected), "{failure:?}");
    }

    for (fs_type, expected) in [(FS_TYPE, "home is mounted"), ("ext4", "something else")] {
        let mounts = [Mount {
            point: at("empty"),
            fs_type: fs_type.into(),
        }];
        let failure = check_mountpoint(&at("link"), &mounts, false).unwrap_err();
        assert!(failure.message.contains(expected), "{failure}");
        assert_eq!(failure.code, Code::Mountpoint);
    }
}

#[test]
fn the_state_directory_is_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let mountpoint = root.join("m");
    let state = root.join("a/b");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        prepare_state_dir(&state, &mountpoint, uid()),
        Ok(state.clone())
    );
    assert_eq!(mode(&state), 0o700);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        prepare_state_dir(&state, &mountpoint, uid()),
        Ok(state.clone())
    );
    assert_eq!(mode(&state), 0o700);
}

#[test]
fn state_directories_that_are_not_fit_are_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let mountpoint = root.join("m");
    fs::create_dir(&mountpoint).unwrap();
    symlink("m", root.join("link")).unwrap();
    fs::write(root.join("file"), "").unwrap();

    let state = |name: &str| prepare_state_dir(&root.join(name), &mountpoint, uid());
    assert_eq!(code(state("m/state")), Some(Code::Mountpoint));
    assert_eq!(code(state("link/state")), Some(Code::Mountpoint));
    assert_eq!(code(state("m")), Some(Code::Mountpoint));
    assert!(!mountpoint.join("state").exists());
    assert_eq!(
        code(prepare_state_dir(&root, &mountpoint, uid())),
        Some(Code::Mountpoint)
    );
    assert_eq!(code(state("file")), Some(Code::StateDir));
    assert_eq!(code(state("file/state")), Some(Code::StateDir));

    let own = root.join("own");
    fs::create_dir(&own).unwrap();
    let failure = prepare_state_dir(&own, &mountpoint, uid() + 1).unwrap_err();
    assert_eq!(failure.code, Code::StateDir);
    assert!(failure.message.contains("belongs to user"));
}
