//! The table of servers.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    app::App,
    layout::{Bits, Widths},
    look::{Theme, cut, cut_end, fit},
    rows::{Row, VirtualKey},
};
use crate::{
    api::{
        Status,
        types::{Rates, RealServerState, RealServerStatus, VirtualServerStatus},
    },
    cli::status::words::{is_on_standby, plain, quorum_lost, remarks, short, short_count},
};

/// The two lines above the table.
pub fn column_names(app: &App, widths: &Widths) -> Vec<Line<'static>> {
    let Widths { server, forward, weight, state, active, inactive, new, packets, bits, remark } = *widths;
    let mut order = format!("Order: {}", app.choice.sort.word());
    if app.choice.reverse {
        order.push_str(", reversed");
    }
    if !app.choice.filter.is_empty() {
        order += &format!("   Filter: {}", app.choice.filter);
    }
    let mut groups = cut_end(&order, widths.left());
    groups += &format!("{:>1$}", "Connections", active + inactive + new);
    groups += &format!("{:>1$}", "Packets/s", packets[0] + packets[1]);
    let mut names = format!("{:<server$}", "   Server");
    names += &format!("{:<forward$}", " Fwd");
    names += &format!("{:>weight$}", if weight > 6 { "Weight" } else { "Wght" });
    names += &format!("{:<state$}", " State");
    names += &format!("{:>active$}{:>inactive$}{:>new$}", "Act", "Inact", "New/s");
    let [packets_in, packets_out] = packets;
    names += &format!("{:>packets_in$}{:>packets_out$}", "In", "Out");
    match bits {
        Bits::Sum(width) => names += &format!("{:>width$}", "Bit/s"),
        Bits::Each([bits_in, bits_out]) => {
            groups += &format!("{:>1$}", "Bits/s", bits_in + bits_out);
            names += &format!("{:>bits_in$}{:>bits_out$}", "In", "Out");
        }
    }
    if remark > 0 {
        names += " Remark";
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    vec![Line::raw(groups), Line::styled(names, bold)]
}

/// The rows in sight.
pub fn table(app: &App, status: &Status, widths: &Widths, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let rows = app.rows_in_sight(area.height.into());
    let lines: Vec<_> = if rows.is_empty() {
        let text = if app.choice.filter.is_empty() {
            "There is no virtual server."
        } else {
            "Nothing contains the filter; Esc clears it."
        };
        vec![Line::raw(text)]
    } else {
        rows.iter()
            .enumerate()
            .map(|(index, row)| {
                let is_selected = app.top + index == app.selected;
                let line = row_line(app, status, *row, is_selected, widths, theme);
                if is_selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
            })
            .collect()
    };
    let is_old = app.failure.is_some();
    let style = if is_old { theme.quiet() } else { Style::new() };
    frame.render_widget(Paragraph::new(lines).style(style), area);
}

fn row_line(
    app: &App,
    status: &Status,
    row: Row,
    is_selected: bool,
    widths: &Widths,
    theme: Theme,
) -> Line<'static> {
    let server = &status.virtual_servers[row.virtual_server()];
    // A character too: reversed video is hard to see on some terminals, and not in copied text.
    let mark = if is_selected { ">" } else { " " };
    match row {
        Row::Virtual(_) => virtual_line(app, mark, server, widths, theme),
        Row::Real(_, real) => real_line(mark, &server.real_servers[real], widths, theme),
        Row::Sorry(_) => sorry_line(mark, server, widths, theme),
    }
}

fn virtual_line(
    app: &App,
    mark: &str,
    server: &VirtualServerStatus,
    widths: &Widths,
    theme: Theme,
) -> Line<'static> {
    let is_folded = !app.choice.folded.is_empty() && app.choice.folded.contains(&VirtualKey::of(server));
    let sign = if is_folded { "+" } else { "-" };
    let width = widths.server + widths.forward + widths.weight - mark.len() - sign.len() - 1;
    let up = server.real_servers.iter().filter(|real| real.state == RealServerState::Up).count();
    let (state, style) = if !server.quorum.up {
        ("no quorum".into(), theme.bad())
    } else if is_on_standby(server) {
        ("standby".into(), Style::new())
    } else if up == server.real_servers.len() {
        (format!("{up}/{up} up"), theme.good())
    } else {
        (format!("{up}/{} up", server.real_servers.len()), theme.coloured(Color::Yellow))
    };
    let remark = quorum_lost(server).unwrap_or_default();
    Line::from(vec![
        Span::styled(
            format!("{mark}{sign} {}", virtual_title(server, width)),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::styled(format!(" {}", fit(&state, widths.state - 1)), style),
        Span::raw(numbers(server.active, server.inactive, &server.rates, widths)),
        remark_span(&remark, widths),
    ])
}

/// `web TCP 192.168.10.50:80 wrr`; when that is too long first the scheduler goes, then the middle of the name.
fn virtual_title(server: &VirtualServerStatus, width: usize) -> String {
    let address = format!(" {} {}", server.protocol, server.address);
    let full = format!("{}{address} {}", server.name, server.scheduler);
    if full.chars().count() <= width {
        return fit(&full, width);
    }
    let for_name = width.saturating_sub(address.len()).max(8).min(server.name.chars().count());
    fit(&format!("{}{address}", cut(&server.name, for_name)), width)
}

fn real_line(mark: &str, server: &RealServerStatus, widths: &Widths, theme: Theme) -> Line<'static> {
    let left = format!(
        "{mark}  {} {}{:>3$}",
        fit(&server.address.to_string(), widths.server - mark.len() - 2),
        fit(&server.forward.to_string(), widths.forward - 1),
        weight(server, widths.weight),
        widths.weight,
    );
    Line::from(vec![
        Span::raw(left),
        Span::styled(
            format!(" {}", fit(&server.state.to_string(), widths.state - 1)),
            theme.state(server.state),
        ),
        Span::raw(numbers(server.active, server.inactive, &server.rates, widths)),
        remark_span(&remarks(server).join("; "), widths),
    ])
}

/// The weight, and the configured one when it is another: `5(1)`, without the place for it `300*`.
fn weight(server: &RealServerStatus, width: usize) -> String {
    match server.configured_weight {
        Some(configured) if configured != server.weight => {
            let both = format!("{}({configured})", server.weight);
            if both.len() < width { both } else { format!("{}*", server.weight) }
        }
        _ => server.weight.to_string(),
    }
}

fn sorry_line(mark: &str, server: &VirtualServerStatus, widths: &Widths, theme: Theme) -> Line<'static> {
    let Some(sorry) = server.sorry_server else { return Line::default() };
    let (state, style) =
        if sorry.active { ("answers", theme.coloured(Color::Yellow)) } else { ("stands by", Style::new()) };
    let left = format!(
        "{mark}  {} {}{:>3$}",
        fit(&sorry.address.to_string(), widths.server - mark.len() - 2),
        fit(&sorry.forward.to_string(), widths.forward - 1),
        "sorry",
        widths.weight,
    );
    // The agent counts nothing for it.
    let nothing = numbers(0, 0, &Rates::default(), widths).replace('0', "-");
    Line::from(vec![
        Span::raw(left),
        Span::styled(format!(" {}", fit(state, widths.state - 1)), style),
        Span::raw(nothing),
        remark_span("", widths),
    ])
}

fn numbers(active: u64, inactive: u64, rates: &Rates, widths: &Widths) -> String {
    let [packets_in, packets_out] = widths.packets;
    let mut cells = vec![
        (short_count(active), widths.active),
        (short_count(inactive), widths.inactive),
        (short(rates.connections), widths.new),
        (short(rates.packets_in), packets_in),
        (short(rates.packets_out), packets_out),
    ];
    match widths.bits {
        Bits::Sum(width) => cells.push((short(8.0 * (rates.bytes_in + rates.bytes_out)), width)),
        Bits::Each([bits_in, bits_out]) => {
            cells.push((short(8.0 * rates.bytes_in), bits_in));
            cells.push((short(8.0 * rates.bytes_out), bits_out));
        }
    }
    cells.iter().map(|(text, width)| format!("{text:>width$}")).collect()
}

fn remark_span(text: &str, widths: &Widths) -> Span<'static> {
    // Padded, so that the selected row is marked up to the edge.
    Span::raw(match widths.remark {
        0 => String::new(),
        width => format!(" {}", cut_end(&plain(text), width - 1)),
    })
}
