"""`headswap diff`: changes of images and settings, and why results moved."""

from pipeline.commands import diff
from pipeline.core import params
from tests.commands.diff.history import State, section, told


class TestImages:
    def test_every_kind_of_change_is_counted_with_an_example(self, state: State) -> None:
        state.images["new.png"] = ["bytes new", "red", "train"]
        del state.images["19.png"]
        state.images["18.png"][1] = "blue"
        state.images["17.png"][2] = "test"
        state.images["16.png"][0] = "other"
        state.images["blue/15.png"] = [state.images.pop("15.png")[0], "blue", "train"]
        assert section(told(state), "Images") == [
            "  20 images",
            "  1 added: new.png",
            "  1 removed: 19.png",
            "  1 renamed: 15.png -> blue/15.png",
            "  1 with other bytes: 16.png",
            "  2 relabelled: 18.png: red -> blue, blue/15.png: red -> blue",
            "  1 moved between splits: 17.png: train -> test",
            "  the test images are not the same (4 -> 5): test scores are of different images",
        ]

    def test_at_most_five_images_are_named(self, state: State) -> None:
        state.images |= {f"new{number}.png": [f"new {number}", "red", "train"] for number in range(7)}
        assert section(told(state), "Images") == [
            "  20 -> 27 images",
            "  7 added: new0.png, new1.png, new2.png, new3.png, new4.png, ...",
        ]

    def test_an_ambiguous_renaming_is_not_guessed(self, state: State) -> None:
        state.images["18.png"][0] = state.images["19.png"][0]
        state.commit("twins")
        del state.images["18.png"], state.images["19.png"]
        state.images["new.png"] = ["bytes 19", "red", "train"]
        state.commit("after")
        found = section(diff.main(params.load(), ["twins", "after"]), "Images")
        assert found[1:] == ["  1 added: new.png", "  2 removed: 18.png, 19.png"]
        found = section(diff.main(params.load(), ["after", "twins"]), "Images")
        assert found[1:] == ["  2 added: 18.png, 19.png", "  1 removed: new.png"]


class TestSettings:
    def test_a_recipe_is_compared_key_by_key(self, state: State) -> None:
        state.recipe |= {"dtype": "float32", "crop": 0.9}
        assert section(told(state), "Recipe") == [
            "  tiny: crop: not set -> 0.9",
            '  tiny: dtype: "float16" -> "float32"',
        ]

    def test_added_and_removed_heads_are_listed(self, state: State) -> None:
        state.heads["lda"] = {}
        state.listed = ["logreg", "lda"]  # the lock still has knn
        state.validation["lda"], state.test["lda"] = 0.9, 0.85
        text = told(state)
        assert section(text, "Heads and plans") == ["  added: tiny/lda", "  removed: tiny/knn"]
        rows = [line.split() for line in section(text, "Results")]
        assert ["tiny/lda", "added:", "90.00%", "added:", "85.00%"] in rows
        assert ["tiny/knn", "removed:", "70.00%", "removed:", "65.00%"] in rows

    def test_a_setting_of_one_head_changes_its_result_alone(self, state: State) -> None:
        state.heads["logreg"]["C"] = [0.01]
        state.validation["logreg"], state.test["logreg"] = 0.82, 0.74
        text = told(state)
        assert section(text, "Heads and plans") == ["  heads.logreg.C: [0.1, 1] -> [0.01]"]
        results = "\n".join(section(text, "Results"))
        assert "80.00% -> 82.00% (+2.00 points)" in results
        assert "75.00% -> 74.00% (-1.00 points)" in results
        assert "70.00%, the same" in results
        assert section(text, "Why") == [
            "  tiny/logreg: validation and test moved, because of:",
            "    heads.logreg.C: [0.1, 1] -> [0.01]",
        ]

    def test_another_selection_metric_is_reported(self, state: State) -> None:
        state.metric = "macro_f1"
        text = told(state)
        assert "  runs were chosen by accuracy before, by macro_f1 after, which is shown" in section(text, "Results")
        assert "validation macro f1" in text
        assert '  selection.metric: "accuracy" -> "macro_f1"' in section(text, "Other settings")


class TestWhy:
    def test_new_images_explain_results_through_all_stages_between(self, state: State) -> None:
        state.images["new.png"] = ["bytes new", "red", "train"]
        state.validation = {"logreg": 0.81, "knn": 0.71}
        assert section(told(state), "Why") == [
            "  tiny/logreg, tiny/knn: validation moved, because of:",
            "    data/raw: 1 added (new.png)",
        ]

    def test_several_causes_are_listed_together(self, state: State) -> None:
        state.code, state.recipe["dtype"], state.validation["knn"] = "second", "float32", 0.72
        found = section(told(state), "Why")
        start = found.index("  tiny/knn: validation moved, because of one or more of:")
        assert found[start + 1 : start + 3] == [
            '    embed.dtype: "float16" -> "float32"',
            "    code: pipeline/heads",
        ]

    def test_a_result_that_stayed_the_same_although_code_changed_is_reported(self, state: State) -> None:
        state.code = "second"
        text = told(state)
        assert section(text, "Code") == ["  1 changed: pipeline/heads"]
        assert section(text, "Why") == [
            "  tiny/logreg, tiny/knn: validation and test stayed the same, although these changed:",
            "    code: pipeline/heads",
        ]

    def test_a_decision_rule_changes_the_test_score_only(self, state: State) -> None:
        state.compare["decision"], state.compare["margin"], state.test["knn"] = "threshold", 0.02, 0.66
        assert section(told(state), "Why") == [
            "  tiny/knn: test moved, because of:",
            '    compare.decision: "most_probable" -> "threshold"',
        ]

    def test_a_change_without_effect_on_predictions_is_no_cause(self, state: State) -> None:
        state.code, state.compare["decision"], state.test["knn"] = "second", "threshold", 0.66
        found = section(told(state), "Why")
        assert found[found.index("  tiny/knn: test moved, because of:") + 1 :] == [
            '    compare.decision: "most_probable" -> "threshold"',
            "  tiny/knn: validation stayed the same, although these changed:",
            "    code: pipeline/heads",
        ]

    def test_other_libraries_are_a_cause(self, state: State) -> None:
        state.libraries, state.validation["knn"] = {"numpy": "2.1"}, 0.72
        assert section(told(state), "Why") == [
            "  tiny/knn: validation moved, because of:",
            '    numpy: "2.0" -> "2.1"',
        ]

    def test_an_unexplained_change_is_reported_as_such(self, state: State) -> None:
        state.validation["knn"] = 0.72
        assert section(told(state), "Why") == ["  tiny/knn: validation moved; nothing recorded explains it"]

    def test_embeddings_that_differ_without_a_cause_are_named(self, state: State) -> None:
        state.noise, state.validation["knn"] = "another processor", 0.72
        found = section(told(state), "Why")
        assert "    data/embeddings/tiny.h5: other bytes, although no recorded input changed" in found
