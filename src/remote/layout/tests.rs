use proptest::prelude::*;

use super::*;

fn path() -> impl Strategy<Value = RelPath> {
    let name = prop_oneof![
        3 => "[a-z~% .]{1,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..255),
    ];
    let name = name.prop_filter_map("not a name", |bytes| Name::new(&bytes).ok());
    prop::collection::vec(name, 0..5).prop_map(|names| names.into_iter().collect())
}

proptest! {
    #[test]
    fn put_aside_names_say_where_they_come_from(
        path in path(), secs in 0..1_i64 << 33, number: u32, reason in 0..4_usize
    ) {
        let aside = Aside::new(Time::new(secs, 0), number, Reason::ALL[reason], &path);
        let name = Name::new(aside.name().as_bytes()).unwrap();
        prop_assert_eq!(Aside::parse(&name), Some(aside.clone()));
        match aside.origin {
            Origin::Path(origin) => prop_assert_eq!(origin, path),
            Origin::Long { end, .. } => prop_assert!(path.to_bytes().ends_with(&end) && !end.is_empty()),
        }
    }

    #[test]
    fn foreign_names_are_not_taken_for_ours(bytes in prop::collection::vec(any::<u8>(), 1..60)) {
        if let Ok(name) = Name::new(&bytes) {
            drop(Aside::parse(&name));
            assert!(parse_staging_name(&name).is_none() && parse_feed_name(&name).is_none());
        }
    }
}

#[test]
fn put_aside_names_can_be_read_by_people() {
    let path = RelPath::parse(b"Documents/caf\xc3\xa9 1.txt").unwrap();
    let aside = Aside::new(Time::new(1_700_000_000, 5), 0xab, Reason::Removed, &path);
    let name = "1700000000-000000ab-removed~Documents%2Fcaf%C3%A9%201.txt";
    assert_eq!(aside.name(), name);
    assert_eq!(
        trash_path(&aside).to_bytes(),
        format!(".roamhome/trash/{name}").as_bytes()
    );
}

#[test]
fn staging_and_feed_names_tell_whose_they_are() {
    let name = staging_name(ClientId(7), NodeId(300), 2);
    assert_eq!(name, "0000000000000007-300-2");
    let parsed = parse_staging_name(&Name::new(name.as_bytes()).unwrap());
    assert_eq!(parsed, Some((ClientId(7), NodeId(300), 2)));
    let feed = feed_path(ClientId(7), 12);
    assert_eq!(parse_feed_name(&feed.names()[2]), Some((ClientId(7), 12)));
    assert!(is_ours(&feed) && !is_ours(&RelPath::parse(b"a/.roamhome").unwrap()));
}

#[test]
fn a_home_file_is_read_back_and_damage_is_told() {
    let home = HomeToml::new(1 << 100);
    assert_eq!(HomeToml::parse(home.format().as_bytes()), Ok(home.clone()));
    let with_more = format!("{}generation = 1\n", home.format());
    assert_eq!(HomeToml::parse(with_more.as_bytes()), Ok(home.clone()));
    let newer = HomeToml {
        format: 9,
        ..home.clone()
    };
    let too_new = HomeToml::parse(newer.format().as_bytes());
    assert_eq!(too_new, Err(HomeTomlError::TooNew { found: 9 }));
    for bytes in [
        &b""[..],
        b"\xff",
        b"format = 1",
        &home.format().as_bytes()[..130],
    ] {
        assert!(matches!(
            HomeToml::parse(bytes),
            Err(HomeTomlError::Damaged(_))
        ));
    }
}
