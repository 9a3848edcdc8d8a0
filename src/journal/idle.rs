//! The closing block of an idle ring: nothing follows its last block with entries, so a block without entries proves
//! it (rules 5 and 15 of the storage protocol).

use std::rc::Rc;

use ringmq_runtime::time;

use crate::journal::Core;

/// Waits until nothing was written for as long as the configuration says, then writes a closing block. One such task
/// runs while the newest block has entries; a block that is in flight for longer starts another one when it has landed.
pub(crate) async fn close_when_idle<C: Clone + 'static>(core: Rc<Core<C>>) {
    loop {
        let next = core.state.borrow().ledger.next();
        let waited = core.stop.or_stop(time::sleep(core.config.idle)).await;
        if waited.is_none() || core.wrote_nothing_since(next) {
            break;
        }
    }
    let may_close = {
        let mut state = core.state.borrow_mut();
        state.watching = false;
        state.takes_blocks() && state.ledger.may_prove_newest()
    };
    if may_close {
        core.launch(&[], None);
    }
}
