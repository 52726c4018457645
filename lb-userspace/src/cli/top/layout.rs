//! Where on the screen things are.

use ratatui::layout::Rect;

/// The smallest screen that shows anything of use.
pub const LEAST_WIDTH: u16 = 60;
/// See [`LEAST_WIDTH`].
pub const LEAST_HEIGHT: u16 = 12;
/// Lines of the head without alerts.
pub const HEAD_LINES: u16 = 4;
const COLUMN_LINES: u16 = 2;
const LEAST_ROWS: u16 = 3;
/// From this width on there are more columns.
const WIDE: u16 = 100;

/// The parts of the screen, from top to bottom without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// The director; alerts are its last lines.
    pub head: Rect,
    /// The names of the columns.
    pub columns: Rect,
    /// The rows.
    pub table: Rect,
    /// Details or events.
    pub pane: Option<Rect>,
    /// Message or prompt.
    pub message: Rect,
    /// The keys.
    pub keys: Rect,
}

impl Areas {
    /// Divides a screen.
    pub fn of(screen: Rect, alerts: usize, has_pane: bool) -> Self {
        let mut y = screen.y;
        let mut take = |height: u16| {
            let height = height.min(screen.bottom().saturating_sub(y));
            let area = Rect { y, height, ..screen };
            y += height;
            area
        };
        let alerts = u16::try_from(alerts).unwrap_or(u16::MAX);
        let head = take(HEAD_LINES.saturating_add(alerts));
        let columns = take(COLUMN_LINES);
        let body = screen.height.saturating_sub(head.height + columns.height + 2);
        // Some rows stay in sight, or nobody sees what the pane is about.
        let most = body.saturating_sub(LEAST_ROWS);
        let pane_height = if has_pane { (screen.height / 2).saturating_sub(2).min(most) } else { 0 };
        let table = take(body - pane_height);
        let pane = has_pane.then(|| take(pane_height));
        Self { head, columns, table, pane, message: take(1), keys: take(1) }
    }
}

/// Widths of the table's columns, each with the space before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// The mark of the selected row, and the server.
    pub server: usize,
    /// The way of forwarding.
    pub forward: usize,
    /// The weight.
    pub weight: usize,
    /// The state.
    pub state: usize,
    /// Active connections.
    pub active: usize,
    /// Inactive connections.
    pub inactive: usize,
    /// New connections per second.
    pub new: usize,
    /// Packets in, packets out.
    pub packets: [usize; 2],
    /// Bits per second: both directions in one column, or one each.
    pub bits: Bits,
    /// Why the state is what it is; 0 without a place for it.
    pub remark: usize,
}

/// How bits per second are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// The sum in a column of this width.
    Sum(usize),
    /// In and out in columns of these widths.
    Each([usize; 2]),
}

impl Widths {
    /// The widths for a screen of so many columns.
    pub fn of(screen: u16) -> Self {
        let is_wide = screen >= WIDE;
        let bits = if is_wide { Bits::Each([6, 6]) } else { Bits::Sum(6) };
        let mut widths = Self {
            server: 0,
            forward: 4,
            weight: if is_wide { 9 } else { 6 },
            state: 13,
            active: 6,
            inactive: 6,
            new: 6,
            packets: [5, 5],
            bits,
            remark: 0,
        };
        let rest = usize::from(screen).saturating_sub(widths.total());
        if is_wide {
            // More than an IPv6 address in full (45 and the mark) is of no use; the rest tells the reason.
            widths.server = (24 + (rest - 24) / 6).min(48);
            widths.remark = rest - widths.server;
        } else {
            widths.server = rest;
        }
        widths
    }

    /// Everything before the numbers.
    pub fn left(&self) -> usize {
        self.server + self.forward + self.weight + self.state
    }

    fn total(&self) -> usize {
        let bits = match self.bits {
            Bits::Sum(width) => width,
            Bits::Each([bits_in, bits_out]) => bits_in + bits_out,
        };
        let [packets_in, packets_out] = self.packets;
        self.left() + self.active + self.inactive + self.new + packets_in + packets_out + bits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_screen_is_divided_without_gaps(
            width in 0_u16..400, height in 0_u16..160, alerts in 0_usize..3, has_pane: bool
        ) {
            let screen = Rect::new(0, 0, width, height);
            let areas = Areas::of(screen, alerts, has_pane);
            let parts =
                [Some(areas.head), Some(areas.columns), Some(areas.table), areas.pane, Some(areas.message), Some(areas.keys)];
            let mut y = 0;
            for part in parts.into_iter().flatten() {
                prop_assert_eq!(part.y, y);
                y += part.height;
            }
            prop_assert!(y <= height);
            if height >= LEAST_HEIGHT {
                prop_assert_eq!(y, height);
                prop_assert!(areas.table.height > 0 && areas.keys.height == 1, "{:?}", areas);
            }
        }

        #[test]
        fn the_columns_fill_the_screen(width in LEAST_WIDTH..400) {
            let widths = Widths::of(width);
            prop_assert_eq!(widths.total() + widths.remark, usize::from(width));
        }
    }
}
