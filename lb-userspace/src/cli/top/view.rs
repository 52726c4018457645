//! The screen, drawn from what the monitor knows.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    symbols::border,
    text::Line,
    widgets::{Block, Clear, Paragraph},
};

use super::{
    app::{App, Mode, Target},
    keys::HELP,
    layout::{LEAST_HEIGHT, LEAST_WIDTH, Widths},
    look::{Theme, cut, cut_end},
    table::{column_names, table},
};
use crate::{
    api::{Status, types::Action},
    cli::status::{
        table::wrapped,
        words::{duration, plain, short},
    },
};

const KEYS: &str = "q quit  ? help  / filter  Enter fold  i detail  E events  d D e w orders";

/// Draws the whole screen.
pub fn view(app: &App, frame: &mut Frame<'_>) {
    let screen = frame.area();
    if screen.width < LEAST_WIDTH || screen.height < LEAST_HEIGHT {
        let text = format!("The terminal is too small: {LEAST_WIDTH} x {LEAST_HEIGHT} at least.");
        let lines = wrapped("", &text, screen.width.into());
        frame.render_widget(Paragraph::new(lines.into_iter().map(Line::raw).collect::<Vec<_>>()), screen);
        return;
    }
    let theme = Theme { has_colour: app.has_colour };
    let areas = app.areas(screen);
    match &app.status {
        None => waiting(app, frame, theme),
        Some(status) => {
            frame.render_widget(Paragraph::new(head(app, status, theme, screen.width.into())), areas.head);
            let widths = Widths::of(screen.width);
            frame.render_widget(Paragraph::new(column_names(app, &widths)), areas.columns);
            table(app, status, &widths, theme, frame, areas.table);
        }
    }
    if let Some(area) = areas.pane {
        pane(app, frame, area);
    }
    message(app, theme, frame, areas.message, areas.table.height.into());
    frame.render_widget(Paragraph::new(Line::styled(KEYS, theme.quiet())), areas.keys);
    if app.mode == Mode::Help {
        help(frame, screen);
    }
}

fn waiting(app: &App, frame: &mut Frame<'_>, theme: Theme) {
    let screen = frame.area();
    let mut lines = vec![Line::raw(format!("Waiting for an answer of {} ...", app.socket))];
    if let Some(failure) = &app.failure {
        let seconds = app.now.saturating_sub(app.answered_at).as_secs();
        lines.push(Line::styled(format!("No answer for {seconds} s:"), theme.bad()));
        lines.extend(wrapped("  ", failure, screen.width.into()).into_iter().map(Line::raw));
    }
    frame.render_widget(Paragraph::new(lines), screen);
}

fn head(app: &App, status: &Status, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let Status { instance, router_id, version, connections, totals, persistence, .. } = status;
    let pinned = match (&persistence.pins, &persistence.reason) {
        (Some(_), _) if persistence.adopted => "; pinned, taken over".into(),
        (Some(_), _) => "; pinned".into(),
        (None, Some(reason)) => format!("; not pinned: {}", plain(reason)),
        (None, None) => String::new(),
    };
    let rates = &totals.rates;
    let mut first = format!(
        "xdirector {version}, instance {instance}, router {router_id}, up {}",
        duration(status.uptime_seconds)
    );
    let every = format!("every {} s", app.every.as_secs_f64());
    if first.chars().count() + 2 + every.len() <= width {
        first = cut_end(&first, width - every.len()) + &every;
    }
    let mut lines: Vec<_> = [
        first,
        format!("Data plane   {}{pinned}", status.data_plane()),
        format!(
            "Connections  {}, {} active, {} inactive",
            connections.fill(),
            totals.active,
            totals.inactive
        ),
        format!(
            "Per second   {} new, in {} pkts {} bits, out {} pkts {} bits",
            short(rates.connections),
            short(rates.packets_in),
            short(8.0 * rates.bytes_in),
            short(rates.packets_out),
            short(8.0 * rates.bytes_out),
        ),
    ]
    .into_iter()
    .map(|line| Line::raw(cut(&line, width)))
    .collect();
    lines.extend(app.alerts().into_iter().map(|alert| Line::styled(cut_end(&alert, width), theme.bad())));
    lines
}

fn pane(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width);
    let lines = app.pane_lines(width);
    let body = usize::from(area.height.saturating_sub(1));
    let top = app.pane_top.min(lines.len().saturating_sub(body));
    let scroll = if lines.len() > body {
        let last = lines.len().min(top + body);
        format!(" lines {}-{last} of {}, K J ---", top + 1, lines.len())
    } else {
        String::new()
    };
    let title = cut(&format!("--- {} ", app.pane_title()), width.saturating_sub(scroll.len()));
    let rule = "-".repeat(width.saturating_sub(title.chars().count() + scroll.len()));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let shown = std::iter::once(Line::styled(format!("{title}{rule}{scroll}"), bold))
        .chain(lines.into_iter().skip(top).take(body).map(|line| Line::raw(cut(&line, width))));
    frame.render_widget(Paragraph::new(shown.collect::<Vec<_>>()), area);
}

fn message(app: &App, theme: Theme, frame: &mut Frame<'_>, area: Rect, lines: usize) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (text, style) = match &app.mode {
        Mode::Filter { .. } => {
            (format!("Filter (Enter keeps it, Esc does not): {}_", app.choice.filter), bold)
        }
        Mode::Weight { target, text } => {
            let Target { address, virtual_server, .. } = target;
            (format!("Weight from 0 to 65535: {text}_  for {address} of {virtual_server}"), bold)
        }
        Mode::Confirm { target, action } => (question(target, *action), bold),
        Mode::Table | Mode::Help => match &app.message {
            None => (String::new(), Style::new()),
            Some(message) if message.is_error => (message.text.clone(), theme.bad()),
            Some(message) => (message.text.clone(), Style::new()),
        },
    };
    let rows = app.rows_in_sight(lines).len();
    let place = if rows == app.rows.len() {
        String::new()
    } else {
        format!(" rows {}-{} of {}", app.top + 1, app.top + rows, app.rows.len())
    };
    let width = usize::from(area.width);
    // What is asked or has failed needs the place more than the position does.
    let place = if text.chars().count() + place.len() > width { String::new() } else { place };
    let text = cut_end(&text, width - place.len()) + &place;
    frame.render_widget(Paragraph::new(Line::styled(text, style)), area);
}

/// Begins with the keys: a long name may push the end out of sight.
fn question(target: &Target, action: Action) -> String {
    let Target { virtual_server, address, active, inactive, weight } = target;
    let server = format!("{address} of {virtual_server}");
    match action {
        Action::Drain { .. } => {
            format!("[y/n] Drain {server}? Its {} connections go on.", active + inactive)
        }
        Action::Disable => format!("[y/n] Disable {server}? It has {active} active connections."),
        Action::Enable => format!("[y/n] Enable {server}? What was ordered for it is lifted."),
        Action::Weight { weight: new } => format!("[y/n] Set weight {new}, now {weight}, for {server}?"),
    }
}

/// ASCII, like everything else here: a console without these characters is still readable.
const BORDER: border::Set = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

fn help(frame: &mut Frame<'_>, screen: Rect) {
    const WIDTH: u16 = 60;
    let lines: Vec<_> = HELP.iter().map(|(key, effect)| Line::raw(format!(" {key:<12} {effect}"))).collect();
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(screen.height);
    let area = Rect {
        x: screen.x + (screen.width - WIDTH) / 2,
        y: screen.y + (screen.height - height) / 2,
        width: WIDTH,
        height,
    };
    frame.render_widget(Clear, area);
    let block = Block::bordered().border_set(BORDER).title(" Help: any key closes it ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
