//! An instance's own keys, and the rules between several instances.

use std::time::Duration;

use lb_userspace::config::{
    Command,
    vrrp::{Authentication, Checksum, Family, FastDetection, Garp, MAX_VRRP_INSTANCES, Version},
};

use super::{DIRECTOR, another, first, good, instance, instance_v6, messages, one, one_key, one_warning};

#[test]
fn the_smallest_instance_gets_keepaliveds_defaults() {
    let read = first(&instance(""));
    assert_eq!((read.name.as_str(), read.interface.as_str(), read.virtual_router_id), ("a", "eth0", 1));
    assert_eq!((read.family, read.version, read.priority), (Family::Ipv4, Version::V2, 100));
    assert_eq!((read.advert_interval, read.preempt_delay), (Duration::from_secs(1), Duration::ZERO));
    assert_eq!((read.initial_master, read.nopreempt), (false, false));
    assert_eq!((read.authentication, read.checksum), (Authentication::None, Checksum::PseudoHeader));
    assert_eq!((read.source_address, read.unicast_peers), (None, Vec::new()));
    assert_eq!((read.check_unicast_source, read.skip_check_adv_addr), (false, false));
    assert_eq!((read.excluded_addresses, read.routes, read.rules), (Vec::new(), Vec::new(), Vec::new()));
    assert_eq!((read.vmac, read.garp, read.dont_track_primary), (None, Garp::default(), false));
    assert_eq!((read.tracks, read.mail, read.fast_detection), (Vec::new(), false, None));
    assert_eq!((read.notify, read.notify_master, read.notify_stop), (None, None, None));
    let read = first(&instance_v6(""));
    assert_eq!((read.family, read.version), (Family::Ipv6, Version::V3));
}

#[test]
fn what_is_missing_is_named() {
    let got = messages(&format!("{DIRECTOR}[[vrrp_instance]]\n"));
    let missing: Vec<_> = got.iter().map(|line| line.split(';').next().unwrap_or_default()).collect();
    assert_eq!(
        missing,
        [
            "f:3: vrrp_instance[0].name: missing",
            "f:3: vrrp_instance[0].interface: missing",
            "f:3: vrrp_instance[0].virtual_router_id: missing",
            "f:3: vrrp_instance[0].addresses: missing",
        ]
    );
}

#[test]
fn version_and_interval_go_together() {
    let interval = |version: &str, interval: &str| {
        first(&instance(&format!("{version}\nadvert_interval = {interval}"))).advert_interval.as_millis()
    };
    assert_eq!(interval("", "\"1s\""), 1000);
    assert_eq!(interval("version = 2", "255"), 255_000);
    assert_eq!(interval("version = 3", "\"10ms\""), 10);
    assert_eq!(interval("version = 3", "\"40s950ms\""), 40_950);
    assert_eq!(first(&instance_v6("advert_interval = \"10ms\"")).advert_interval.as_millis(), 10);

    let whole = "expected whole seconds from \"1s\" to \"255s\", or version = 3";
    one_key("advert_interval = \"500ms\"", &format!("too short for version 2; {whole}"));
    one_key("advert_interval = \"1500ms\"", &format!("not to be told in adverts of version 2; {whole}"));
    one_key("advert_interval = \"256s\"", "too long; expected a time from \"10ms\" to \"255s\"");
    one_key("advert_interval = \"9ms\"", "too short");
    one_key("advert_interval = 0.5", "wrong type, a number with a fraction");
    let v3 = |interval: &str, expected: &str| {
        one(
            &instance(&format!("version = 3\nadvert_interval = {interval}")),
            &format!("f:9: vrrp_instance[0] \"a\".advert_interval = {interval}: {expected}"),
        );
    };
    let steps = "expected a time from \"10ms\" to \"40s950ms\" in steps of 10 ms";
    v3("\"15ms\"", &format!("not to be told in adverts of version 3; {steps}"));
    v3("\"40s960ms\"", &format!("too long for version 3; {steps}"));
    v3("41", "too long for version 3");

    one_key("version = 1", "out of range; expected a whole number from 2 to 3");
    one_key("version = \"3\"", "wrong type, a text");
    one(
        &instance_v6("version = 2\nadvert_interval = \"500ms\""),
        "f:8: vrrp_instance[0] \"a\".version = 2: version 2 has no IPv6; expected 3, or no version",
    );
}

#[test]
fn numbers_and_words_have_limits() {
    for (key, what) in [
        ("priority = 0", "out of range; expected a whole number from 1 to 255"),
        ("priority = 256", "out of range"),
        ("state = \"master\"", "unknown state; expected one of \"MASTER\", \"BACKUP\""),
        ("preempt_delay = \"-1s\"", "not a time"),
        ("checksum = \"rfc5798\"", "unknown checksum; expected one of \"pseudo-header\", \"rfc9568\""),
        ("garp_master_repeat = 0", "out of range; expected a whole number from 1 to 1000"),
        ("garp_master_refresh_repeat = 0", "out of range"),
        ("garp_lower_prio_repeat = 1001", "out of range"),
        ("garp_interval = \"11s\"", "too long; expected a time from \"0s\" to \"10s\""),
        ("notify = \"/bin/true\"", "wrong type, a text; expected an array of texts"),
        ("notify_stop = [\"true\"]", "\"true\" is not the absolute path of a program"),
        ("fast_detection = 1", "wrong type, an integer"),
        ("mail = true", "to nobody; expected a table [mail], or false"),
        ("family = \"ipv4\"", "unknown key"),
    ] {
        one_key(key, what);
    }
    let text = instance("");
    for (bad, what) in [("0", "out of range; expected a whole number from 1 to 255"), ("256", "out of range")]
    {
        one(
            &text.replace("virtual_router_id = 1", &format!("virtual_router_id = {bad}")),
            &format!("f:6: vrrp_instance[0] \"a\".virtual_router_id = {bad}: {what}"),
        );
    }
    let path = "f:8: vrrp_instance[0] \"a\".fast_detection.";
    one(&instance("fast_detection = {}"), &format!("{path}interval: missing"));
    let fast = |keys: &str| instance(&format!("fast_detection = {{ interval = {keys} }}"));
    one(
        &fast("\"0s\""),
        &format!("{path}interval = \"0s\": too short; expected a time from \"1ms\" to \"10s\""),
    );
    one(&fast("1, multiplier = 1"), &format!("{path}multiplier = 1: out of range"));
    let read = first(&fast("\"10ms\"")).fast_detection;
    assert_eq!(read, Some(FastDetection { interval: Duration::from_millis(10), multiplier: 3 }));
}

#[test]
fn who_preempts_whom() {
    let read = |keys: &str| {
        let read = first(&instance(keys));
        (read.initial_master, read.nopreempt, read.preempt_delay.as_secs())
    };
    assert_eq!(read("nopreempt = true"), (false, true, 0));
    assert_eq!(read("state = \"BACKUP\"\npreempt_delay = \"5m\""), (false, false, 300));
    assert_eq!(read("state = \"MASTER\"\nnopreempt = false\npreempt_delay = 0"), (true, false, 0));
    // What keepalived takes back with a warning.
    let ignored = ": ignored, as keepalived does";
    let line = "f:9: warning: vrrp_instance[0] \"a\".";
    for (keys, message, comes_to) in [
        (
            "state = \"MASTER\"\nnopreempt = true",
            "nopreempt = true: not together with state = \"MASTER\"",
            (true, false, 0),
        ),
        (
            "state = \"MASTER\"\npreempt_delay = 60",
            "preempt_delay = 60: not together with state = \"MASTER\"",
            (true, false, 0),
        ),
        (
            "nopreempt = true\npreempt_delay = 60",
            "preempt_delay = 60: not together with nopreempt",
            (false, true, 0),
        ),
    ] {
        one(&instance(keys), &format!("{line}{message}{ignored}"));
        assert_eq!(read(keys), comes_to, "{keys}");
    }
    one(
        &instance("priority = 255\nnopreempt = true"),
        "f:9: vrrp_instance[0] \"a\".nopreempt = true: the owner of the addresses, priority 255, always takes over; \
         expected nopreempt = false, or a priority from 1 to 254",
    );
    assert_eq!(messages(&instance("priority = 255\nnopreempt = false")), [""; 0]);
}

#[test]
fn the_checksum_is_a_choice_of_version_3_over_ipv4() {
    assert_eq!(first(&instance("version = 3\nchecksum = \"rfc9568\"")).checksum, Checksum::Rfc9568);
    assert_eq!(messages(&instance("version = 3\nchecksum = \"rfc9568\"")), [""; 0]);
    let what = "without effect: only version 3 over IPv4 has the choice";
    one_warning("checksum = \"rfc9568\"", what);
    one(
        &instance_v6("checksum = \"rfc9568\""),
        &format!("f:8: warning: vrrp_instance[0] \"a\".checksum = \"rfc9568\": {what}"),
    );
}

#[test]
fn gratuitous_arp_has_keepaliveds_names() {
    let read = first(&instance(
        "garp_master_repeat = 3\ngarp_master_delay = 7\ngarp_master_refresh = 60\ngarp_master_refresh_repeat = 2\n\
         garp_interval = \"1ms\"",
    ));
    let garp = Garp {
        repeat: 3,
        delay: Duration::from_secs(7),
        refresh: Duration::from_secs(60),
        refresh_repeat: 2,
        // As above unless given.
        lower_prio_repeat: 3,
        lower_prio_delay: Duration::from_secs(7),
        interval: Duration::from_millis(1),
    };
    assert_eq!(read.garp, garp);
    let read = first(&instance("garp_lower_prio_repeat = 0\ngarp_lower_prio_delay = 0"));
    assert_eq!((read.garp.lower_prio_repeat, read.garp.lower_prio_delay), (0, Duration::ZERO));
    assert_eq!((read.garp.repeat, read.garp.delay), (5, Duration::from_secs(5)));
}

#[test]
fn scripts_run_without_a_shell() {
    let read = first(&instance(
        "notify = [\"/n\", \"x\"]\nnotify_master = [\"/m\"]\nnotify_backup = []\nnotify_fault = [\"/f\"]\n\
         notify_stop = [\"/s\"]",
    ));
    let command = |words: &[&str]| Some(Command(words.iter().map(|word| (*word).to_owned()).collect()));
    assert_eq!((read.notify, read.notify_master), (command(&["/n", "x"]), command(&["/m"])));
    assert_eq!(
        (read.notify_backup, read.notify_fault, read.notify_stop),
        (None, command(&["/f"]), command(&["/s"]))
    );
}

#[test]
fn the_macvlan_has_a_name_of_its_own() {
    let vmac = |value: &str| first(&instance(&format!("vmac = {value}"))).vmac;
    assert_eq!(vmac("true").as_deref(), Some("vrrp.1"));
    assert_eq!(vmac("false"), None);
    assert_eq!(vmac("\"v50\"").as_deref(), Some("v50"));
    assert_eq!(first(&instance_v6("vmac = true")).vmac.as_deref(), Some("vrrp6.1"));
    one_key("vmac = 1", "wrong type, an integer; expected true, false, or a name");
    one_key("vmac = \"sixteen-letters-\"", "too long, 16 bytes; expected true, false, or a name");
    one_key(
        "vmac = \"eth0\"",
        "\"eth0\" is an interface of director.interfaces; expected a name for a new interface",
    );
    let other = another("b", 2).replace("\"eth0\"", "\"eth7\"");
    one(
        &format!("{}{other}", instance("vmac = \"eth7\"")),
        "f:8: vrrp_instance[0] \"a\".vmac = \"eth7\": \"eth7\" is an interface of an instance",
    );
    // The same number on two interfaces would make the same name.
    let other = another("b", 1).replace("\"eth0\"", "\"eth7\"").replace("192.0.2.1", "192.0.2.2");
    one(
        &format!("{}{other}vmac = true\n", instance("vmac = true")),
        "f:14: vrrp_instance[1] \"b\".vmac = true: \"vrrp.1\" is made for line 8 already; expected another name for each",
    );
    good(&format!("{}{other}vmac = \"v1\"\n", instance("vmac = true")));
}

#[test]
fn names_and_routers_are_unique() {
    one(
        &format!("{}{}", instance(""), another("a", 2)),
        "f:10: vrrp_instance[1].name = \"a\": the name is taken at line 4; expected another name for each",
    );
    let same = another("b", 1).replace("192.0.2.1", "192.0.2.2");
    one(
        &format!("{}{same}", instance("")),
        "f:12: vrrp_instance[1] \"b\".virtual_router_id = 1: taken at line 6 for IPv4 on \"eth0\"; expected another \
         number for each virtual router of an interface",
    );
    // Another interface, or another family, is another virtual router.
    good(&format!("{}{}", instance(""), same.replace("eth0", "eth1")));
    good(&format!("{}{}", instance(""), same.replace("192.0.2.2", "2001:db8::2")));
}

#[test]
fn limits() {
    let instances = |count: usize| {
        let mut text = DIRECTOR.to_owned();
        for number in 0..count {
            let (high, low) = (number / 200, number % 200 + 1);
            let one = another(&format!("i{number}"), u8::try_from(low).expect("at most 200"));
            text +=
                &one.replace("eth0", &format!("eth{high}")).replace("192.0.2.", &format!("192.0.{high}."));
        }
        text
    };
    assert_eq!(good(&instances(MAX_VRRP_INSTANCES)).vrrp.instances.len(), MAX_VRRP_INSTANCES);
    one(
        &instances(MAX_VRRP_INSTANCES + 1),
        "f:5123: vrrp_instance[1024]: 1025 instances; expected at most 1024",
    );
}
