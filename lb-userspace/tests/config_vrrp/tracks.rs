//! What is tracked, by whom, and groups.

use std::time::Duration;

use lb_userspace::config::{
    Command,
    vrrp::{MAX_VRRP_TRACKED, Track, TrackFile, TrackKey, TrackPort, TrackProcess, VrrpScript},
};

use super::{another, first, good, instance, messages, one, one_key};

const SCRIPT: &str = "[[vrrp_script]]\nname = \"s\"\ncommand = [\"/bin/true\"]\n";
const THINGS: &str = "[[vrrp_script]]\nname = \"s\"\ncommand = [\"/bin/true\"]\nweight = 2\n\
    [[vrrp_track_process]]\nname = \"p\"\nprocess = \"haproxy\"\n\
    [[vrrp_track_file]]\nname = \"f\"\nfile = \"/f\"\n\
    [[vrrp_track_port]]\nname = \"t\"\naddress = \"127.0.0.1:443\"\n";

/// Two instances "a" and "b", then `rest` from line 14.
fn two(rest: &str) -> String {
    format!("{}{}{rest}\n", instance(""), another("b", 2))
}

/// A group of both, `rest` from line 17.
fn group(rest: &str) -> String {
    two(&format!("[[vrrp_sync_group]]\nname = \"g\"\ninstances = [\"a\", \"b\"]\n{rest}"))
}

#[test]
fn things_to_track_have_defaults() {
    let vrrp = good(&format!("{}{THINGS}", instance(""))).vrrp;
    let second = Duration::from_secs(1);
    assert_eq!(
        vrrp.scripts,
        [VrrpScript {
            name: "s".to_owned(),
            command: Command(vec!["/bin/true".to_owned()]),
            interval: second,
            timeout: second,
            rise: 1,
            fall: 1,
            weight: 2,
            user: None,
            init_fail: false,
        }]
    );
    assert_eq!(
        vrrp.processes,
        [TrackProcess {
            name: "p".to_owned(),
            process: "haproxy".to_owned(),
            quorum: 1,
            interval: second,
            weight: 0,
        }]
    );
    assert_eq!(
        vrrp.files,
        [TrackFile { name: "f".to_owned(), file: "/f".to_owned(), interval: second, weight: 1 }]
    );
    assert_eq!(
        vrrp.ports,
        [TrackPort {
            name: "t".to_owned(),
            address: "127.0.0.1:443".parse().expect("an address"),
            interval: second,
            timeout: second,
            rise: 1,
            fall: 1,
            weight: 0,
        }]
    );
    let keys = "interval = \"5s\"\nrise = 2\nfall = 3\nuser = \"nobody\"\ninit_fail = true\n";
    let script = good(&format!("{}{SCRIPT}{keys}", instance(""))).vrrp.scripts.remove(0);
    assert_eq!((script.interval, script.timeout), (5 * second, 5 * second), "timeout is as interval");
    assert_eq!((script.rise, script.fall, script.init_fail), (2, 3, true));
    assert_eq!(script.user.as_deref(), Some("nobody"));
}

#[test]
fn things_to_track_follow_their_rules() {
    let thing = |header: &str, keys: &str| format!("{}[[{header}]]\nname = \"x\"\n{keys}\n", instance(""));
    for (header, keys, what) in [
        ("vrrp_script", "", "command: missing"),
        ("vrrp_script", "command = \"killall -0 haproxy\"", "wrong type, a text; expected an array of texts"),
        (
            "vrrp_script",
            "command = [\"killall\", \"-0\"]",
            "\"killall\" is not the absolute path of a program",
        ),
        ("vrrp_script", "command = []", "no program"),
        ("vrrp_track_process", "process = \"/usr/sbin/haproxy\"", "a path; expected the name of a program"),
        ("vrrp_track_process", "process = \"\"", "not the name of a program"),
        ("vrrp_track_process", "", "process: missing"),
        ("vrrp_track_file", "file = \"weights\"", "not the absolute path of a file"),
        ("vrrp_track_file", "", "file: missing"),
        ("vrrp_track_port", "address = \"127.0.0.1\"", "no port"),
        ("vrrp_track_port", "address = \"127.0.0.1:0\"", "port 0"),
        ("vrrp_track_port", "address = \"224.0.0.1:80\"", "a multicast address"),
        ("vrrp_track_port", "address = \"[fe80::1]:80\"", "a link-local address"),
        ("vrrp_track_port", "", "address: missing"),
    ] {
        let path = format!("{header}[0] \"x\".");
        let expected = if keys.is_empty() {
            format!("f:9: {path}{what}")
        } else {
            format!("f:11: {path}{keys}: {what}")
        };
        one(&thing(header, keys), &expected);
    }
    for (key, what) in [
        ("weight = 254", "out of range; expected a whole number from -253 to 253"),
        ("weight = -254", "out of range"),
        ("weight = 99999999999999999999", "out of range"),
        ("weight = \"2\"", "wrong type, a text"),
        ("rise = 0", "out of range"),
        ("fall = 101", "out of range"),
        ("interval = \"9ms\"", "too short"),
        ("timeout = \"0s\"", "too short"),
        ("user = \"0\"", "not the name of a user"),
    ] {
        let text = format!("{}{SCRIPT}{key}\n", instance(""));
        one(&text, &format!("f:12: vrrp_script[0] \"s\".{key}: {what}"));
    }
    one(
        &format!("{}{SCRIPT}{SCRIPT}", instance("")),
        "f:13: vrrp_script[1].name = \"s\": the name is taken at line 10; expected another name for each",
    );
    let mut text = instance("");
    for number in 0..=MAX_VRRP_TRACKED {
        text += &SCRIPT.replace("\"s\"", &format!("\"s{number}\""));
    }
    one(&text, "f:3081: vrrp_script[1024]: 1025 tables [[vrrp_script]]; expected at most 1024");
}

#[test]
fn weights_are_the_tracks_own_or_the_things() {
    let text = format!(
        "{}{THINGS}[[virtual_server]]\nname = \"web\"\naddress = \"192.0.2.1:80\"\n\
         real_server = [{{ address = \"10.0.0.1\" }}]\n",
        instance(
            "track_virtual_servers = [\"web\"]\ntrack_ports = [{ name = \"t\", weight = -7 }]\ntrack_files = [\"f\"]\n\
             track_processes = [{ name = \"p\" }]\ntrack_scripts = [\"s\"]\n\
             track_interfaces = [\"eth1\", { name = \"eth2\", weight = 253 }, { name = \"eth3\" }]"
        )
    );
    let track = |key: fn(String) -> TrackKey, name: &str, weight| Track { key: key(name.to_owned()), weight };
    assert_eq!(
        first(&text).tracks,
        [
            track(TrackKey::Interface, "eth1", 0),
            track(TrackKey::Interface, "eth2", 253),
            track(TrackKey::Interface, "eth3", 0),
            track(TrackKey::Script, "s", 2),
            track(TrackKey::Process, "p", 0),
            track(TrackKey::File, "f", 1),
            track(TrackKey::Port, "t", -7),
            track(TrackKey::VirtualServer, "web", 0),
        ]
    );
    one_key("track_interfaces = \"eth1\"", "wrong type, a text; expected an array such as [\"eth1\"] or");
    let path = "f:8: vrrp_instance[0] \"a\".track_interfaces";
    for (list, what) in [
        ("[3]", "[0] = 3: wrong type, an integer; expected \"eth1\" or { name = \"eth1\", weight = -10 }"),
        ("[\"a b\"]", "[0] = \"a b\": a space or control character in it"),
        ("[{ weight = 1 }]", "[0].name: missing"),
        ("[{ name = \"eth1\", weight = -254 }]", "[0].weight = -254: out of range"),
        ("[{ name = \"eth1\", wieght = 1 }]", "[0].wieght = 1: unknown key"),
        (
            "[\"eth1\", { name = \"eth1\", weight = 1 }]",
            "[1].name = \"eth1\": tracked at line 8 already; expected each once",
        ),
    ] {
        one(&instance(&format!("track_interfaces = {list}")), &format!("{path}{what}"));
    }
    one(
        &instance("priority = 255\ntrack_interfaces = [\"eth1\", { name = \"eth2\", weight = -5 }]"),
        "f:9: warning: vrrp_instance[0] \"a\".track_interfaces[1].weight = -5: a weight of -5, and nothing changes priority \
         255",
    );
}

#[test]
fn unknown_names_get_the_nearest_suggested() {
    let with = |track: &str| format!("{}{THINGS}", instance(track));
    for (track, what) in [
        (
            "track_scripts = [\"S\"]",
            "track_scripts[0] = \"S\": no [[vrrp_script]] of this name; expected \"s\"; did you mean \"s\"?",
        ),
        ("track_processes = [\"q\"]", "track_processes[0] = \"q\": no [[vrrp_track_process]] of this name"),
        (
            "track_files = [{ name = \"q\" }]",
            "track_files[0].name = \"q\": no [[vrrp_track_file]] of this name",
        ),
        ("track_ports = [\"q\"]", "track_ports[0] = \"q\": no [[vrrp_track_port]] of this name"),
        (
            "track_virtual_servers = [\"q\"]",
            "track_virtual_servers[0] = \"q\": no [[virtual_server]] of this name; expected a table [[virtual_server]] of \
             this name, and there is none",
        ),
    ] {
        one(&with(track), &format!("f:8: vrrp_instance[0] \"a\".{what}"));
    }
    // About a name that may only be broken, nothing is said.
    let broken = SCRIPT.replace("\"s\"", "\"s s\"");
    one(
        &format!("{}{broken}", instance("track_scripts = [\"s\"]")),
        "f:10: vrrp_script[0].name = \"s s\": ' ' is not allowed",
    );
    let got = messages(&format!("{}{}", instance("track_scripts = [\"s\"]"), SCRIPT.replace("\"s\"", "s")));
    assert_eq!(got.len(), 1, "{got:#?}");
    let mut many = instance("track_scripts = [\"s100\"]");
    for number in 0..9 {
        many += &SCRIPT.replace("\"s\"", &format!("\"s{number}\""));
    }
    one(
        &many,
        "f:8: vrrp_instance[0] \"a\".track_scripts[0] = \"s100\": no [[vrrp_script]] of this name; expected the name of a \
         [[vrrp_script]]",
    );
}

#[test]
fn groups_have_members() {
    let vrrp = good(&group("track_interfaces = [\"eth5\"]\nnotify = [\"/n\"]\nnotify_stop = [\"/s\"]")).vrrp;
    let [read] = &vrrp.sync_groups[..] else { panic!("{vrrp:?}") };
    assert_eq!((read.name.as_str(), &read.instances[..]), ("g", &["a".to_owned(), "b".to_owned()][..]));
    assert_eq!(read.tracks, [Track { key: TrackKey::Interface("eth5".to_owned()), weight: 0 }]);
    assert_eq!((read.tracking_weight, read.mail), (false, false));
    assert_eq!(read.notify, Some(Command(vec!["/n".to_owned()])));
    assert_eq!((&read.notify_master, &read.notify_backup, &read.notify_fault), (&None, &None, &None));
    assert_eq!(read.notify_stop, Some(Command(vec!["/s".to_owned()])));

    let members = |list: &str| two(&format!("[[vrrp_sync_group]]\nname = \"g\"\ninstances = {list}\n"));
    let path = "f:16: vrrp_sync_group[0] \"g\".instances";
    for (list, what) in [
        ("[]", " = []: no instance; expected an array of names of instances"),
        (
            "[\"a\", \"b\", \"B\"]",
            "[2] = \"B\": no [[vrrp_instance]] of this name; expected one of \"a\", \"b\"; did you mean \"b\"?",
        ),
        (
            "[\"a\", \"b\", \"a\"]",
            "[2] = \"a\": a member of a group at line 16 already; expected each instance in one group",
        ),
        ("\"a\"", " = \"a\": wrong type, a text"),
    ] {
        one(&members(list), &format!("{path}{what}"));
    }
    one(
        &members("[\"a\"]"),
        "f:16: warning: vrrp_sync_group[0] \"g\".instances = [\"a\"]: a single instance has nobody to move together with",
    );
    one(&two("[[vrrp_sync_group]]\nname = \"g\""), "f:14: vrrp_sync_group[0] \"g\".instances: missing");
    one(
        &format!(
            "{}{}[[vrrp_sync_group]]\nname = \"h\"\ninstances = [\"c\", \"a\"]\n",
            group(""),
            another("c", 3)
        ),
        "f:25: vrrp_sync_group[1] \"h\".instances[1] = \"a\": a member of a group at line 16 already",
    );
    one(
        &format!(
            "{}{}{}[[vrrp_sync_group]]\nname = \"g\"\ninstances = [\"c\", \"d\"]\n",
            group(""),
            another("c", 3),
            another("d", 4)
        ),
        "f:29: vrrp_sync_group[1].name = \"g\": the name is taken at line 15",
    );
    // A broken instance is no unknown one.
    let text = group("").replace("name = \"b\"", "name = \"b b\"");
    one(&text, "f:10: vrrp_instance[1].name = \"b b\": ' ' is not allowed");
}

#[test]
fn groups_have_weights_only_if_they_say_so() {
    let expected = "expected weight = 0, or tracking_weight = true, which adds it to every member's priority";
    one(
        &group("track_interfaces = [{ name = \"eth1\", weight = -5 }]"),
        &format!(
            "f:17: vrrp_sync_group[0] \"g\".track_interfaces[0].weight = -5: a weight of -5 in a group; {expected}"
        ),
    );
    // The thing's own weight counts too.
    let thing = |keys: &str| group(&format!("{keys}\n{THINGS}"));
    one(
        &thing("track_scripts = [\"s\"]"),
        &format!(
            "f:17: vrrp_sync_group[0] \"g\".track_scripts[0] = \"s\": a weight of 2 in a group; {expected}"
        ),
    );
    good(&thing("track_scripts = [{ name = \"s\", weight = 0 }]"));
    let read = good(&thing("track_scripts = [\"s\"]\ntracking_weight = true")).vrrp.sync_groups.remove(0);
    assert_eq!(read.tracks, [Track { key: TrackKey::Script("s".to_owned()), weight: 2 }]);
    one(
        &group("track_scripts = [\"q\"]"),
        "f:17: vrrp_sync_group[0] \"g\".track_scripts[0] = \"q\": no [[vrrp_script]] of this name",
    );
}
