//! The monitor, driven by inputs; whole screens are compared.

mod sample;

use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use self::sample::{director, many};
use super::*;
use crate::api::{
    Order, Ordered, StateEvent, Status,
    types::{Action, LastReload, OrderedServer, RealServerState},
};

const SECOND: Duration = Duration::from_secs(1);

fn app_of(status: Status, width: u16, height: u16) -> App {
    let mut app = App::new("/run/xdirector/default.sock", SECOND, false, width, height);
    assert_eq!(app.update(Duration::ZERO, Input::Status(Ok(Box::new(status)))), None);
    app
}

fn normal() -> App {
    app_of(director(), 80, 24)
}

fn press(app: &mut App, code: KeyCode) -> Option<Effect> {
    app.update(app.now, Input::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

/// Presses keys that ask for nothing.
#[track_caller]
fn keys(app: &mut App, keys: &str) {
    for key in keys.chars() {
        assert_eq!(press(app, KeyCode::Char(key)), None, "{key}");
    }
}

fn select(app: &mut App, server: &str) {
    for _ in 0..app.rows.len() {
        if app.selected_server().is_some_and(|(_, known)| known.address.to_string() == server) {
            return;
        }
        assert_eq!(press(app, KeyCode::Down), None);
    }
    panic!("no {server}");
}

#[track_caller]
fn screen(app: &App) -> String {
    let text = picture(app, app.size.width, app.size.height).unwrap();
    assert_eq!(text.lines().count(), usize::from(app.size.height));
    assert!(text.is_ascii(), "{text}");
    text
}

fn message_line(app: &App) -> String {
    let text = screen(app);
    let line = text.lines().rev().nth(1).unwrap();
    // Without the position at its end.
    line.split(" rows ").next().unwrap().trim_end().to_owned()
}

/// First words of the rows in sight.
fn servers(app: &App) -> Vec<String> {
    let text = screen(app);
    let table = app.areas(app.size).table;
    let rows = text.lines().skip(table.y.into()).take(table.height.into()).filter(|line| !line.is_empty());
    rows.map(|row| row.split([' ', '>', '-', '+']).find(|word| !word.is_empty()).unwrap().to_owned())
        .collect()
}

#[test]
fn normal_80x24() {
    insta::assert_snapshot!(screen(&normal()));
}

#[test]
fn normal_120x40() {
    insta::assert_snapshot!(screen(&app_of(director(), 120, 40)));
}

#[test]
fn no_servers() {
    let mut status = director();
    status.virtual_servers.clear();
    let mut app = app_of(status, 80, 24);
    insta::assert_snapshot!(screen(&app));
    // Nothing to select, nothing to break.
    for key in "iEdDewz n ?jkrs".chars() {
        press(&mut app, KeyCode::Char(key));
        press(&mut app, KeyCode::PageDown);
        screen(&app);
    }
}

#[test]
fn ten_thousand_virtual_servers() {
    let mut app = app_of(many(10_000), 80, 24);
    assert_eq!(app.rows.len(), 30_000);
    insta::assert_snapshot!("many_first", screen(&app));
    press(&mut app, KeyCode::End);
    insta::assert_snapshot!("many_last", screen(&app));
    // Only what is in sight is drawn.
    assert_eq!(app.rows_in_sight(app.areas(app.size).table.height.into()).len(), 16);
    keys(&mut app, "/vs-00777");
    assert_eq!(servers(&app), ["vs", "10.3.9.1:80", "10.3.9.2:80"]);
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "z");
    assert_eq!(app.rows.len(), 10_000);
    assert!(servers(&app).iter().all(|name| name == "vs"));
}

#[test]
fn detail_of_a_real_server() {
    let mut app = normal();
    select(&mut app, "192.168.1.102:8080");
    keys(&mut app, "i");
    insta::assert_snapshot!("detail_80x24", screen(&app));
    app.update(SECOND, Input::Resize { width: 120, height: 40 });
    insta::assert_snapshot!("detail_120x40", screen(&app));
}

#[test]
fn detail_scrolls_and_closes() {
    let mut app = normal();
    select(&mut app, "192.168.1.102:8080");
    keys(&mut app, "i");
    let begin = screen(&app);
    assert!(begin.contains("K J ---"), "{begin}");
    keys(&mut app, "JJJJJJ");
    let end = screen(&app);
    assert!(end.contains("In all ") && !begin.contains("In all "), "{end}");
    keys(&mut app, "KKKKKK");
    assert_eq!(screen(&app), begin);
    press(&mut app, KeyCode::Esc);
    assert!(!screen(&app).contains("---"));
}

#[test]
fn detail_of_a_virtual_server() {
    let mut app = normal();
    keys(&mut app, "sri");
    press(&mut app, KeyCode::End);
    insta::assert_snapshot!(screen(&app));
}

#[test]
fn help() {
    let mut app = normal();
    keys(&mut app, "?");
    insta::assert_snapshot!(screen(&app));
    // Any key only closes it.
    keys(&mut app, "q");
    assert_eq!(screen(&app), screen(&normal()));
}

#[test]
fn filter() {
    let mut app = normal();
    keys(&mut app, "/DOWN");
    insta::assert_snapshot!("filter_typed", screen(&app));
    press(&mut app, KeyCode::Enter);
    assert!(screen(&app).contains("Filter: DOWN"));
    // A new one can be given up for the old one.
    keys(&mut app, "/x");
    assert!(screen(&app).contains("Nothing contains the filter"));
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.choice.filter, "DOWN");
    keys(&mut app, "/");
    for _ in 0..10 {
        press(&mut app, KeyCode::Backspace);
    }
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.rows.len(), normal().rows.len());
}

#[test]
fn orders_wait_for_a_yes() {
    let mut app = normal();
    select(&mut app, "192.168.1.101:8080");
    keys(&mut app, "d");
    insta::assert_snapshot!("confirmation", screen(&app));
    keys(&mut app, "n");
    assert_eq!(message_line(&app), "Nothing ordered.");
    let order = |action| {
        Some(Effect::Order(Order {
            server: "192.168.1.101:8080".into(),
            virtual_server: Some("web".into()),
            action,
        }))
    };
    for (key, action) in
        [('d', Action::Drain { timeout_seconds: None }), ('D', Action::Disable), ('e', Action::Enable)]
    {
        assert_eq!(press(&mut app, KeyCode::Char(key)), None);
        assert_eq!(press(&mut app, KeyCode::Char('y')), order(action));
    }
    keys(&mut app, "w1x2");
    press(&mut app, KeyCode::Backspace);
    keys(&mut app, "7");
    press(&mut app, KeyCode::Enter);
    assert_eq!(message_line(&app), "[y/n] Set weight 17, now 2, for 192.168.1.101:8080 of web?");
    assert_eq!(press(&mut app, KeyCode::Char('y')), order(Action::Weight { weight: 17 }));
}

#[test]
fn an_order_keeps_its_server_when_rows_move() {
    let mut app = normal();
    select(&mut app, "192.168.1.101:8080");
    keys(&mut app, "D");
    let mut other = director();
    other.virtual_servers.remove(0);
    app.update(SECOND, Input::Status(Ok(Box::new(other))));
    let Some(Effect::Order(order)) = press(&mut app, KeyCode::Char('y')) else { panic!("no order") };
    assert_eq!((order.server.as_str(), order.virtual_server.as_deref()), ("192.168.1.101:8080", Some("web")));
}

#[test]
fn wrong_weights_and_rows_order_nothing() {
    let mut app = normal();
    keys(&mut app, "d");
    assert!(message_line(&app).starts_with("Select a real server first"), "{}", message_line(&app));
    select(&mut app, "192.168.1.101:8080");
    keys(&mut app, "w65536");
    assert_eq!(press(&mut app, KeyCode::Enter), None);
    assert!(message_line(&app).contains("0 to 65535"), "{}", message_line(&app));
    keys(&mut app, "w");
    press(&mut app, KeyCode::Esc);
    assert_eq!(message_line(&app), "Nothing ordered.");
}

#[test]
fn control_keys_are_no_letters() {
    let mut app = normal();
    select(&mut app, "192.168.1.101:8080");
    let control = |app: &mut App, key| {
        app.update(SECOND, Input::Key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL)))
    };
    assert_eq!(control(&mut app, 'd'), None);
    assert_eq!(app.mode, app::Mode::Table);
    assert_eq!(control(&mut app, 'c'), Some(Effect::Quit));
    keys(&mut app, "/");
    assert_eq!(control(&mut app, 'c'), Some(Effect::Quit));
    press(&mut app, KeyCode::Esc);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Some(Effect::Quit));
}

#[test]
fn answers_to_orders() {
    let order = Order {
        server: "192.168.1.101:8080".into(),
        virtual_server: Some("web".into()),
        action: Action::Drain { timeout_seconds: None },
    };
    let mut app = normal();
    let server = OrderedServer {
        virtual_server: "web".into(),
        address: "192.168.1.101:8080".parse().unwrap(),
        connections: 352,
    };
    let mut answer = Ordered { servers: vec![server], not_kept: None };
    let done = app.update(SECOND, Input::Ordered(order.clone(), Ok(answer.clone())));
    assert_eq!(done, Some(Effect::Refresh));
    assert_eq!(message_line(&app), "Drain: done for 192.168.1.101:8080 of web (352 connections)");
    answer.not_kept = Some("disk full".into());
    app.update(SECOND, Input::Ordered(order.clone(), Ok(answer)));
    assert!(app.message.as_ref().unwrap().text.contains("not kept over a restart: disk full"));
    assert_eq!(app.update(SECOND, Input::Ordered(order, Err("no such\nserver\x1b".into()))), None);
    assert_eq!(message_line(&app), "Drain 192.168.1.101:8080: no such server?");
    // Until the next key.
    press(&mut app, KeyCode::Down);
    assert_eq!(message_line(&app), "");
}

#[test]
fn agent_gone() {
    let mut app = normal();
    let failure = "no xdirector is running here (/run/xdirector/default.sock: connection refused)";
    app.update(5 * SECOND, Input::Status(Err(failure.into())));
    app.update(7 * SECOND, Input::Tick);
    insta::assert_snapshot!("agent_gone", screen(&app));
    let mut back = director();
    back.pid = 900;
    app.update(8 * SECOND, Input::Status(Ok(Box::new(back))));
    let text = screen(&app);
    assert!(!text.contains("NO ANSWER"), "{text}");
    assert_eq!(message_line(&app), "The agent is another process now (pid 900, was 812).");
}

#[test]
fn a_silent_agent_is_seen() {
    let mut app = normal();
    app.update(3 * SECOND, Input::Tick);
    assert!(!screen(&app).contains("NO ANSWER"));
    app.update(4 * SECOND, Input::Tick);
    assert!(screen(&app).contains("NO ANSWER for 4 s, the table is old: the agent is silent"));
}

#[test]
fn before_the_first_answer() {
    let mut app = App::new("/run/xdirector/default.sock", SECOND, false, 80, 24);
    app.update(2 * SECOND, Input::Status(Err("no xdirector is running here (no such file)".into())));
    keys(&mut app, "jdwi/a");
    insta::assert_snapshot!(screen(&app));
}

#[test]
fn events() {
    let event = |at, subject: &str, text: &str| StateEvent { at, subject: subject.into(), text: text.into() };
    let mut app = normal();
    assert_eq!(press(&mut app, KeyCode::Char('E')), Some(Effect::Events));
    // No second question before the answer, one with each status after it.
    let status = || Input::Status(Ok(Box::new(director())));
    assert_eq!(app.update(SECOND, status()), None);
    let events = vec![
        event(1_763_664_900, "web/192.168.1.101:8080", "up: HTTP 200 for /health"),
        event(
            1_763_664_955,
            "web/192.168.1.102:8080",
            "down: HTTP 503 for /health, and a text that is so long that it needs a second line",
        ),
    ];
    assert_eq!(app.update(SECOND, Input::Events(Ok(events))), None);
    assert_eq!(app.update(2 * SECOND, status()), Some(Effect::Events));
    insta::assert_snapshot!(screen(&app));
    app.update(2 * SECOND, Input::Events(Err("no".into())));
    assert_eq!(message_line(&app), "no events: no");
    keys(&mut app, "E");
    assert_eq!(app.update(3 * SECOND, status()), None);
}

#[test]
fn orders_of_rows() {
    let mut app = normal();
    let configured = servers(&app);
    keys(&mut app, "a");
    assert!(screen(&app).contains("Order: active"));
    // Most active first, among virtual servers and in each.
    assert_eq!(servers(&app)[..3], ["web", "192.168.1.103:8080", "192.168.1.101:8080"]);
    keys(&mut app, "r");
    assert_eq!(servers(&app).last().unwrap(), "192.168.1.200:80");
    keys(&mut app, "rs");
    assert_eq!(servers(&app)[..2], ["mail", "192.168.2.11:25"]);
    keys(&mut app, "c");
    assert_eq!(servers(&app)[0], "dns");
    keys(&mut app, "b");
    assert_eq!(servers(&app)[0], "web");
    keys(&mut app, "n");
    assert_eq!(servers(&app), configured);
    keys(&mut app, "n");
    assert_eq!(servers(&app)[0], "dns");
    keys(&mut app, "nr");
    assert_eq!(servers(&app)[0], "lega..name");
}

#[test]
fn the_selected_row_stays_selected() {
    let mut app = normal();
    select(&mut app, "192.168.2.11:25");
    keys(&mut app, "a");
    assert_eq!(app.selected_server().unwrap().1.address.to_string(), "192.168.2.11:25");
    let mut less = director();
    less.virtual_servers.remove(0);
    app.update(SECOND, Input::Status(Ok(Box::new(less))));
    assert_eq!(app.selected_server().unwrap().1.address.to_string(), "192.168.2.11:25");
    // Folded away: its virtual server is.
    press(&mut app, KeyCode::Enter);
    assert!(app.selected_server().is_none());
    assert!(screen(&app).contains(">+ mail"), "{}", screen(&app));
    press(&mut app, KeyCode::Char(' '));
    assert!(screen(&app).contains(">- mail"), "{}", screen(&app));
}

#[test]
fn scrolling_keeps_the_selection_in_sight() {
    let mut app = app_of(many(100), 80, 24);
    let selected_is_shown = |app: &App| screen(app).lines().filter(|line| line.starts_with('>')).count() == 1;
    for code in
        [KeyCode::PageDown, KeyCode::PageDown, KeyCode::Up, KeyCode::End, KeyCode::PageUp, KeyCode::Home]
    {
        press(&mut app, code);
        assert!(selected_is_shown(&app), "{code:?}: {}", screen(&app));
    }
    press(&mut app, KeyCode::End);
    for (width, height) in [(80, 13), (200, 60), (80, 24)] {
        app.update(SECOND, Input::Resize { width, height });
        assert!(selected_is_shown(&app), "{width}x{height}: {}", screen(&app));
    }
}

#[test]
fn any_size_is_drawn() {
    for (width, height) in
        [(0, 0), (1, 1), (20, 5), (59, 24), (60, 12), (61, 13), (99, 12), (100, 12), (300, 100)]
    {
        let mut app = app_of(director(), width, height);
        for key in ['i', '?', 'E'] {
            press(&mut app, KeyCode::Char(key));
            picture(&app, width, height).unwrap();
        }
    }
    assert!(picture(&app_of(director(), 50, 5), 50, 5).unwrap().contains("too small"));
}

#[test]
fn alerts_in_the_head() {
    let mut status = director();
    status.configuration.last_reload =
        Some(LastReload { at: 0, succeeded: false, message: "x.toml:3: port: 99999 is too large".into() });
    status.persistence.pins = None;
    status.persistence.reason = Some("no BPF file system".into());
    let text = screen(&app_of(status, 80, 24));
    assert!(text.contains("\nReload failed at 1970-01-01 00:00:00 UTC: x.toml:3: port: 99999"), "{text}");
    assert!(text.contains("; not pinned: no BPF file system\n"), "{text}");
}

#[test]
fn colours_repeat_words_and_can_be_off() {
    let styles = |has_colour| {
        let mut app = App::new("s", SECOND, has_colour, 80, 24);
        app.update(Duration::ZERO, Input::Status(Ok(Box::new(director()))));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| view(&app, frame)).unwrap();
        let cells = terminal.backend().buffer().content().to_vec();
        (
            cells.iter().any(|cell| cell.fg == Color::Red),
            cells.iter().any(|cell| cell.fg != Color::Reset),
            cells,
        )
    };
    let (is_red, is_coloured, cells) = styles(true);
    assert!(is_red && is_coloured);
    // The selected row is marked over its whole width.
    assert!(cells[6 * 80..7 * 80].iter().all(|cell| cell.modifier.contains(Modifier::REVERSED)));
    let (_, is_coloured, _) = styles(false);
    assert!(!is_coloured);
    assert!(wants_colour(None) && wants_colour(Some(OsStr::new(""))) && !wants_colour(Some(OsStr::new("1"))));
}

#[test]
fn what_others_wrote_cannot_move_the_cursor() {
    let mut status = director();
    let server = &mut status.virtual_servers[0].real_servers[1];
    server.state = RealServerState::Down;
    server.reason = Some("\x1b[2J\x07".into());
    server.checks[0].detail = Some("\x1b]0;title\x07".into());
    let mut app = app_of(status, 120, 40);
    select(&mut app, "192.168.1.102:8080");
    keys(&mut app, "i");
    let text = screen(&app);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.contains("?[2J?"), "{text}");
}

#[test]
fn intervals() {
    assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    for wrong in ["0", "-1", "nan", "inf", "3601", "x", ""] {
        assert!(seconds(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn once_without_an_agent() {
    let directory = tempfile::tempdir().unwrap();
    let error = once(&directory.path().join("none.sock"), 80, 24).unwrap_err().to_string();
    assert!(error.contains("no xdirector is running here"), "{error}");
}
