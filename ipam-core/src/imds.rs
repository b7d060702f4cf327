//! What IMDS shows: a hint that makes us look at EC2, never a proof.

use crate::BootTime;
use crate::core::Core;
use crate::event::ImdsView;

impl Core {
    pub(crate) fn imds_viewed(&mut self, view: ImdsView, now: BootTime) {
        self.imds_groups(view.groups, now);
    }
}
