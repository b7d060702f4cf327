//! ENIs that nodes of this cluster left behind when they ended.

use crate::Now;
use crate::core::Core;
use crate::event::Ec2View;

impl Core {
    pub(crate) fn leaked_viewed(&mut self, _view: &Ec2View, _now: Now) {}
}
