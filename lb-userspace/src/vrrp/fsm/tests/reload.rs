//! Other settings while running.

use super::*;

fn reload(bench: &mut Bench, settings: Settings) -> Vec<String> {
    let commands = bench.machine.reconfigure(settings.clone(), bench.now);
    bench.settings = settings;
    short(&commands)
}

fn two() -> Settings {
    let instances = ["a", "b"].map(|name| instance(name, Version::V2, 100)).to_vec();
    Settings { instances, groups: Vec::new() }
}

fn masters(settings: Settings) -> Bench {
    let mut bench = Bench::with(settings);
    bench.handle(Event::Start);
    bench.until_master();
    bench
}

#[test]
fn the_same_settings_change_nothing() {
    let mut bench = masters(two());
    bench.pass(ms(300));
    let before = (bench.machine.view(0), bench.machine.view(1));
    assert_eq!(reload(&mut bench, two()), [""; 0]);
    assert_eq!(bench.machine.poll_timeout(), Some(bench.now));
    assert_eq!(bench.handle(Event::Timeout), []);
    assert_eq!((bench.machine.view(0), bench.machine.view(1)), before);
}

/// A removed instance gives up, by its old position; the one that stays goes on at its new one.
#[test]
fn a_removed_instance_gives_up() {
    let mut bench = masters(two());
    let mut settings = two();
    settings.instances.remove(0);
    assert_eq!(reload(&mut bench, settings), ["advertise 0 0", "release 0", "0 Master -> Init"]);
    assert_eq!(bench.handle(Event::Timeout), []);
    assert_eq!((bench.state(0), bench.wait()), (State::Master, ms(1000)));
    assert_eq!(short(&bench.next()), ["advertise 0 100"]);
}

/// A new instance waits for its address; then it begins.
#[test]
fn a_new_instance_begins_in_backup() {
    let mut bench = masters(two());
    let mut settings = two();
    settings.instances.insert(0, instance("c", Version::V2, 100));
    assert_eq!(reload(&mut bench, settings), [""; 0]);
    assert_eq!(bench.handle(Event::Timeout), []);
    assert_eq!(bench.state(0), State::Init);
    let commands = bench.handle(Event::Source { instance: 0, address: Some(host(1)) });
    assert_eq!(short(&commands), ["0 Init -> Backup"]);
    assert_eq!([1, 2].map(|id| bench.state(id)), [State::Master, State::Master]);
}

#[test]
fn another_virtual_router_begins_anew() {
    let changes: [fn(&mut VrrpInstance); 6] = [
        |instance| instance.interface = "eth1".to_owned(),
        |instance| instance.virtual_router_id = 52,
        |instance| instance.version = Version::V3,
        |instance| instance.family = Family::Ipv6,
        |instance| instance.vmac = Some("vrrp.51".to_owned()),
        |instance| instance.addresses = vec![virtual_address(102)],
    ];
    for change in changes {
        let mut bench = masters(two());
        let mut settings = two();
        change(&mut settings.instances[1]);
        assert_eq!(reload(&mut bench, settings), ["advertise 1 0", "release 1", "1 Master -> Init"]);
        assert_eq!([0, 1].map(|id| bench.state(id)), [State::Master, State::Init]);
    }
}

/// More addresses, another priority: it stays master and says so at once.
#[test]
fn an_instance_that_stays_says_what_is_new() {
    let mut bench = masters(two());
    let mut settings = two();
    settings.instances[0].addresses.push(virtual_address(101));
    settings.instances[1].priority = 120;
    assert_eq!(reload(&mut bench, settings), [""; 0]);
    assert_eq!(short(&bench.handle(Event::Timeout)), ["advertise 0 100", "advertise 1 120", "announce 0 5"]);
    assert_eq!([0, 1].map(|id| bench.state(id)), [State::Master, State::Master]);
    // Adverts with the new list are understood, those with the old one are not any more.
    let advert = Advert { priority: 200, addresses: vec![host(100)], ..bench.like_ours(0) };
    let commands = bench.handle(Event::Advert { instance: 0, source: host(2), advert });
    assert_eq!(short(&commands), ["discarded 0 AddressList"]);
    bench.advert(0, 2, 200);
    assert_eq!(bench.state(0), State::Backup);
}

/// Members of a new group are elected together: one of them is BACKUP, so all are.
#[test]
fn a_new_member_takes_its_group_to_backup() {
    let mut bench = masters(two());
    bench.advert(1, 2, 200);
    let settings = Settings { groups: vec![group("VG", &["a", "b"])], ..two() };
    assert_eq!(reload(&mut bench, settings), [""; 0]);
    let commands = bench.handle(Event::Timeout);
    assert_eq!(short(&commands), ["advertise 0 0", "release 0", "0 Master -> Backup", "group 0 Backup"]);
}

/// A member that is not known yet cannot serve, so its group does not.
#[test]
fn a_new_member_that_is_not_known_yet_holds_its_group() {
    let groups = vec![group("VG", &["a", "b", "c"])];
    let mut bench = masters(Settings { groups: groups.clone(), ..two() });
    let mut settings = Settings { groups, ..two() };
    settings.instances.push(instance("c", Version::V2, 100));
    reload(&mut bench, settings);
    bench.handle(Event::Timeout);
    assert_eq!([0, 1, 2].map(|id| bench.state(id)), [State::Backup, State::Backup, State::Init]);
    assert_eq!(bench.machine.group_state(0), State::Backup);
    bench.handle(Event::Source { instance: 2, address: Some(host(1)) });
    bench.until_master();
    assert_eq!([0, 1, 2].map(|id| bench.state(id)), [State::Master; 3]);
}

#[test]
fn a_removed_group_ends() {
    let mut bench = masters(Settings { groups: vec![group("VG", &["a", "b"])], ..two() });
    assert_eq!(reload(&mut bench, two()), ["group 0 Init"]);
    assert_eq!([0, 1].map(|id| bench.state(id)), [State::Master, State::Master]);
    bench.advert(0, 2, 200);
    assert_eq!([0, 1].map(|id| bench.state(id)), [State::Backup, State::Master]);
}

/// Who follows heartbeats that stay away would take over.
#[test]
fn without_fast_detection_the_heartbeats_end() {
    let mut settings = two();
    settings.instances[0].fast_detection = Some(FastDetection { interval: ms(10), multiplier: 3 });
    let mut bench = masters(settings);
    assert_eq!(reload(&mut bench, two()), ["last heartbeat 0"]);
    assert_eq!(short(&bench.handle(Event::Timeout)), ["advertise 0 100"]);
    assert_eq!(bench.wait(), ms(1000));
}

/// keepalived's `nopreempt`, from a reload on.
#[test]
fn nopreempt_ends_a_preemption_under_way() {
    let mut bench = Bench::one(v2(100));
    bench.pass(ms(3000));
    bench.advert(0, 2, 50);
    let instances = vec![VrrpInstance { nopreempt: true, ..v2(100) }];
    reload(&mut bench, Settings { instances, groups: Vec::new() });
    assert_eq!(bench.handle(Event::Timeout), []);
    assert_eq!(bench.wait(), us(3_609_375));
}

/// Before the start a reload only changes what there is.
#[test]
fn a_reload_before_the_start_starts_nothing() {
    let now = epoch();
    let mut machine = Machine::new(two(), now);
    assert_eq!(machine.reconfigure(two(), now), []);
    assert_eq!((machine.poll_timeout(), machine.view(0).state), (None, State::Init));
}
