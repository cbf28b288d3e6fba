"""The demo fails when a number is off."""

import pytest

from deploy.story import Story


def test_a_demo_whose_numbers_all_hold_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(1)
    story.step("counting")
    story.check("answers", expected=3, found=3, key=True)
    story.check("share", expected="10 % ± 1", found="10.4%", ok=True)

    assert story.summary() == 0
    shown = capsys.readouterr().out
    assert "[1/1] counting" in shown
    assert "all 2 checks hold" in shown


@pytest.mark.parametrize("key", [True, False])
def test_a_number_that_is_off_fails_it_and_is_shown(capsys: pytest.CaptureFixture[str], key: bool) -> None:
    story = Story(1)
    story.check("answers", expected=3, found=3)
    story.check("accuracy", expected="0.9482", found="0.9483", key=key)

    assert story.summary() == 1
    shown = capsys.readouterr().out
    assert "WRONG accuracy: 0.9483, expected 0.9482" in shown
    assert "1 of 2 checks failed" in shown


def test_what_does_not_come_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.story._PATIENCE", 0.05)

    with pytest.raises(TimeoutError, match="the spans"):
        Story(1).wait_for(lambda: None, "the spans")
