"""Wanted subscriptions: counted, replayed, never two calls for the same thing at once."""

import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.realtime.subscriptions import Step, Subscriptions, Want

A, B = Want("SubscribeOrders", (1,)), Want("SubscribeAccounts")


def test_a_want_knows_its_opposite() -> None:
    """The call that takes it back has the documented name."""
    assert ("UnsubscribeOrders", "SubscribeOrders(1)", "SubscribeAccounts()") == (A.undo, str(A), str(B))


def test_wanted_sent_answered_standing() -> None:
    """One call for any number of holders; it stands once it is answered."""
    subs = Subscriptions()
    assert (True, True) == (subs.add([A, B], "x"), subs.add([A], "y"))
    steps = subs.due()
    assert ([Step(A, "SubscribeOrders", False), Step(B, "SubscribeAccounts", False)], []) == (steps, subs.due())
    assert (False, set()) == (subs.settled, subs.standing())
    for step in steps:
        subs.answered(step, None)
    assert (True, {A, B}, {A, B}) == (subs.settled, subs.standing(), subs.wanted())
    assert (False, []) == (subs.add([A], "z"), subs.due())


def test_the_last_holder_takes_it_back() -> None:
    """Unsubscribing is a diff: shared ones stay."""
    subs = Subscriptions()
    subs.add([A, B], "x")
    subs.add([A], "y")
    for step in subs.due():
        subs.answered(step, None)
    assert subs.remove([A, B], "x")
    (undo,) = subs.due()
    assert Step(B, "UnsubscribeAccounts", True) == undo
    subs.answered(undo, "whatever")
    assert ({A}, {A}) == (subs.standing(), subs.wanted())
    assert not subs.remove([Want("Never")], "x")


def test_changes_of_mind_wait_for_the_answer() -> None:
    """Taken back while the call is in flight: the opposite follows the answer, never overtakes it."""
    subs = Subscriptions()
    subs.add([A], "x")
    (step,) = subs.due()
    subs.remove([A], "x")
    assert [] == subs.due()
    subs.answered(step, None)
    (undo,) = subs.due()
    assert undo.undoing
    subs.add([A], "x")
    assert [] == subs.due()
    subs.answered(undo, None)
    assert ["SubscribeOrders"] == [again.target for again in subs.due()]


def test_a_refusal_is_kept_until_the_next_connection() -> None:
    """It is not asked again on this connection, unless somebody wants it anew."""
    subs = Subscriptions()
    subs.add([A], "x")
    (step,) = subs.due()
    subs.answered(step, "no such account")
    assert ({A: "no such account"}, [], True) == (subs.refused(), subs.due(), subs.settled)
    subs.fresh()
    assert 1 == len(subs.due())


def test_a_new_connection_starts_from_nothing() -> None:
    """Everything wanted is due again, what was being taken back is forgotten, old answers mean nothing."""
    subs = Subscriptions()
    subs.add([A, B], "x")
    old = subs.due()
    subs.remove([B], "x")
    subs.fresh()
    subs.answered(old[0], None)
    assert (set(), [A]) == (subs.standing(), [step.want for step in subs.due()])


def test_renewing_takes_back_and_asks_again() -> None:
    """What stands is made anew; what does not is left alone."""
    subs = Subscriptions()
    subs.add([A], "x")
    assert (False, False) == (subs.renew(A), subs.renew(B))
    for _ in range(2):
        for step in subs.due():
            subs.answered(step, None)
    assert subs.renew(A)
    (undo,) = subs.due()
    subs.answered(undo, None)
    (again,) = subs.due()
    subs.answered(again, None)
    assert (True, False, {A}) == (undo.undoing, again.undoing, subs.standing())


def test_who_waits_is_told() -> None:
    """A watch is set once all its wants are answered, refused ones included, or when there will be no answers."""
    subs = Subscriptions()
    subs.add([A, B], "x")
    both, one = subs.watch([A, B]), subs.watch([A])
    first, second = subs.due()
    subs.answered(first, None)
    assert (False, True) == (both.is_set(), one.is_set())
    subs.answered(second, "no")
    assert (True, True) == (both.is_set(), subs.watch([A]).is_set())
    subs.fresh()
    lost = subs.watch([A])
    subs.release()
    assert lost.is_set()


@given(
    st.lists(st.sampled_from(["add", "remove", "due", "answer", "refuse", "fresh", "renew"]), max_size=60), st.randoms()
)
def test_at_most_one_call_in_flight_and_the_end_is_what_is_wanted(script: list[str], chance: random.Random) -> None:
    """Whatever happens, no want has two calls in flight, and once all is answered exactly the wanted stands."""
    subs, flying = Subscriptions(), []
    for act in script:
        want, holder = chance.choice([A, B]), chance.choice("xy")
        if act == "add":
            subs.add([want], holder)
        elif act == "remove":
            subs.remove([want], holder)
        elif act == "renew":
            subs.renew(want)
        elif act == "fresh":
            flying.clear()
            subs.fresh()
        elif act == "due":
            flying += subs.due()
            assert len({step.want for step in flying}) == len(flying)
        elif flying:
            subs.answered(flying.pop(0), "no" if act == "refuse" else None)
    for _ in range(4):
        for step in flying + subs.due():
            subs.answered(step, None)
        flying.clear()
    assert subs.wanted() - set(subs.refused()) == subs.standing()
    assert subs.settled


def test_32_threads() -> None:
    """Adding and removing from many threads leaves exactly what is held."""
    subs = Subscriptions()

    def work(holder: int) -> None:
        for _ in range(100):
            subs.add([A, B], holder)
            subs.remove([A], holder)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {B} == subs.wanted()


def test_what_stood_is_gone_with_the_connection() -> None:
    """Between two connections nothing is agreed: who asks for what stood before waits for the hub to say so anew."""
    subscriptions, want = Subscriptions(), Want("SubscribeContractQuotes", ("A",))
    subscriptions.add([want], "first")
    (step,) = subscriptions.due()
    subscriptions.answered(step, None)
    assert {want} == subscriptions.standing()
    subscriptions.lost()
    watch = subscriptions.watch([want])
    assert (set(), False, False) == (subscriptions.standing(), subscriptions.agreed([want]), watch.is_set())
    subscriptions.fresh()
    (step,) = subscriptions.due()
    subscriptions.answered(step, None)
    assert ({want}, True) == (subscriptions.standing(), watch.is_set())
