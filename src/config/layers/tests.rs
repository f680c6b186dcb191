use super::*;

fn env() -> Env {
    Env {
        uid: 1000,
        user: "ann".into(),
        home: "/home/ann".into(),
        xdg_config_home: None,
        xdg_state_home: None,
        xdg_runtime_dir: None,
    }
}

fn with(text: &str) -> Result<Layers, ConfigError> {
    let mut layers = Layers::defaults()?;
    layers.add_file(Path::new("/etc/a.toml"), text, &env())?;
    Ok(layers)
}

fn value<'a>(layers: &'a Layers, key: &str) -> &'a Value {
    layers.values().iter().find(|v| v.key == key).unwrap()
}

#[test]
fn the_defaults_are_complete_and_valid() {
    let layers = Layers::defaults().unwrap();
    let config = layers.config();
    assert_eq!(config.server, None);
    assert_eq!(config.retention.as_secs(), 30 * 86_400);
    assert_eq!((config.channels, config.uploads_in_flight), (4, 768));
    assert!(config.host_scoped_patterns().any(|p| p == "/.Xauthority*"));
    assert_eq!(layers.values()[0].key, "server");
}

#[test]
fn later_layers_win_and_sources_are_remembered() {
    let mut layers = with("quiet_period = '2s'\nprefer = 'remote'").unwrap();
    layers
        .add_file(Path::new("/b.toml"), "quiet_period = 3", &env())
        .unwrap();
    layers.set_flag("identity", "/key", "--identity").unwrap();
    layers.set_flag("server_fsync", "false", "-o").unwrap();
    let config = layers.config();
    assert!(!config.server_fsync);
    assert_eq!(config.quiet_period.as_secs(), 3);
    assert_eq!(config.identity.as_deref(), Some(Path::new("/key")));
    for (key, source) in [
        ("quiet_period", Source::File("/b.toml".into())),
        ("prefer", Source::File("/etc/a.toml".into())),
        ("identity", Source::Flag("--identity".into())),
        ("channels", Source::Default),
    ] {
        assert_eq!(value(&layers, key).source, source);
    }
}

#[test]
fn own_patterns_are_added_to_the_shipped_ones() {
    let layers = with("host_scoped = ['*.iso', '!/.cache/']").unwrap();
    let patterns: Vec<_> = layers.config().host_scoped_patterns().collect();
    assert!(patterns.contains(&"/.cache/"));
    assert_eq!(patterns.last(), Some(&"!/.cache/"));
}

#[test]
fn templates_in_files_are_filled_in() {
    let layers = with("server = '{user}@nas:/homes/{user}'").unwrap();
    assert_eq!(
        layers.config().server.as_deref(),
        Some("ann@nas:/homes/ann")
    );
}

#[test]
fn errors_name_the_file_the_key_and_the_remedy() {
    for (text, expected) in [
        (
            "retenton = '1d'",
            vec!["/etc/a.toml", "\"retenton\"", "did you mean \"retention\""],
        ),
        (
            "retention = 'long'",
            vec!["/etc/a.toml: retention", "\"30d\""],
        ),
        ("channels = 9", vec!["/etc/a.toml: channels", "1 to 8"]),
        (
            "channels = 'x'",
            vec!["/etc/a.toml: channels", "invalid type"],
        ),
        (
            "guard_removed_share = 25.0",
            vec!["guard_removed_share", "between 0.0 and 1.0"],
        ),
        ("publish = 'blindly'", vec!["publish", "link", "aside"]),
        ("log = ''", vec!["log", "trace"]),
        ("a = \n", vec!["/etc/a.toml", "line 1"]),
    ] {
        let error = with(text).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{text}: {error:?} lacks {part:?}");
        }
    }
}

#[test]
fn usual_files_may_be_absent_and_a_named_one_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env {
        xdg_config_home: Some(dir.path().into()),
        ..env()
    };
    assert!(Layers::load(&env, None).is_ok());
    let named = dir.path().join("none.toml");
    let error = Layers::load(&env, Some(&named)).unwrap_err().to_string();
    assert!(error.contains("none.toml"), "{error}");

    std::fs::create_dir(dir.path().join("roamhome")).unwrap();
    std::fs::write(dir.path().join("roamhome/config.toml"), "channels = 2").unwrap();
    assert_eq!(Layers::load(&env, None).unwrap().config().channels, 2);
}
