"""Annotation files as people have them, and as they have them wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from vsearch.errors import VsearchError
from vsearch.models.training.datasets import read_dataset


def official(folder: Path, videos: int = 3) -> Path:
    content = {
        "info": {},
        "videos": [
            {"video_id": f"video{i}", "split": "test" if i == 2 else "train", "start time": 0.0}
            for i in range(videos)
        ],
        "sentences": [
            {"video_id": f"video{i % videos}", "caption": f"caption {i}", "sen_id": 100 - i}
            for i in range(2 * videos)
        ],
    }
    (folder / "MSRVTT_data.json").write_text(json.dumps(content))
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\nvideo1\n")
    (folder / "MSRVTT_JSFUSION_test.csv").write_text(
        'key,vid_key,video_id,sentence\nret0,msr2,video2,"a dog, running"\n'
    )
    return folder


def test_msrvtt_official_with_lists(tmp_path: Path) -> None:
    folder = official(tmp_path)
    train = read_dataset("msrvtt", folder, "9k")
    assert [c.video for c in train.clips] == ["video0", "video1"]
    assert train.clips[0].captions == ("caption 3", "caption 0")  # by sen_id
    assert read_dataset("msrvtt", folder, "1k-A").clips[0].captions == ("a dog, running",)
    assert [c.video for c in read_dataset("msrvtt", folder, "test").clips] == ["video2"]
    assert train.digest != read_dataset("msrvtt", folder, "train").digest or len(train.clips) == 2


def test_msrvtt_other_forms(tmp_path: Path) -> None:
    listed = tmp_path / "hf.json"
    listed.write_text(
        json.dumps([{"video_id": "video1", "caption": "one"}, {"video_id": "v2", "caption": ["a", "b"]}])
    )
    assert [c.captions for c in read_dataset("msrvtt", listed).clips] == [("one",), ("a", "b")]
    mapped = tmp_path / "mm.json"
    mapped.write_text(json.dumps({"video0.mp4": ["x", "y"]}))
    assert read_dataset("msrvtt", mapped).clips[0].video == "video0"


def test_msrvtt_training_list_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VsearchError, match="carries no captions"):
        read_dataset("msrvtt", official(tmp_path) / "MSRVTT_train.9k.csv")


def test_msvd_pickle_makes_only_data(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}_list.txt").write_text("id1\n" if split == "train" else "")
    file = tmp_path / "raw-captions.pkl"
    file.write_bytes(pickle.dumps({"id1": [["a", "dog"], ["it", "runs"]]}))
    assert read_dataset("msvd", tmp_path, "train").clips[0].captions == ("a dog", "it runs")

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/owned",)

    file.write_bytes(pickle.dumps({"id1": Evil()}))
    with pytest.raises(VsearchError, match="wants to run"):
        read_dataset("msvd", tmp_path, "train")
    assert not (tmp_path / "owned").exists()


def test_other_caption_sets(tmp_path: Path) -> None:
    (tmp_path / "LSMDC16_annos_val.csv").write_text(
        "clip1\t0\t1\t0\t1\tSomeone runs.\nclip1\t0\t1\t0\t1\tAgain.\n"
    )
    assert read_dataset("lsmdc", tmp_path, "val").clips[0].captions == ("Someone runs.", "Again.")
    (tmp_path / "train_data.json").write_text(
        json.dumps(
            [
                {"video": "a.mp4", "description": "one", "times": [[0, 1]]},
                {"video": "a.mp4", "description": "two"},
            ]
        )
    )
    didemo = read_dataset("didemo", tmp_path, "train")
    assert (didemo.clips[0].captions, didemo.query_unit) == (("one two",), "paragraph")
    (tmp_path / "val_1.json").write_text(
        json.dumps({"v_x": {"duration": 9, "timestamps": [[0, 1], [1, 2]], "sentences": ["A. ", " B."]}})
    )
    assert read_dataset("activitynet-captions", tmp_path, "val").clips[0].captions == ("A. B.",)
    (tmp_path / "vatex.json").write_text(json.dumps([{"videoID": "x_000001_000011", "enCap": ["a", "b"]}]))
    assert read_dataset("vatex", tmp_path).clips[0].captions == ("a", "b")


def test_coco_and_karpathy(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "7.jpg"}],
                "annotations": [{"id": 1, "image_id": 7, "caption": "x"}],
            }
        )
    )
    assert read_dataset("coco", file).clips[0].captions == ("x",)
    file.write_text(
        json.dumps({"images": [{"filename": "a.jpg", "split": "val", "sentences": [{"raw": "y"}]}]})
    )
    assert read_dataset("coco", file, "val").clips[0].captions == ("y",)
    with pytest.raises(VsearchError, match="no clips for split 'test'"):
        read_dataset("coco", file, "test")


def test_action_sets(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        'label,youtube_id,time_start,time_end,split,is_cc\n"playing ""oud"" (x)",abc,3,13,train,0\n'
    )
    clip = read_dataset("kinetics", tmp_path, "train").clips[0]
    assert clip.label == 'playing "oud" (x)'
    assert clip.video.endswith("/abc_000003_000013")
    (tmp_path / "trainlist01.txt").write_text("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\n")
    assert read_dataset("ucf101", tmp_path, "train1").clips[0].label == "apply eye makeup"
    (tmp_path / "brush_hair_test_split1.txt").write_text("a #1;(x)!.avi 1\nb.avi 2\nc.avi 0\n")
    clips = read_dataset("hmdb51", tmp_path, "train1").clips
    assert [(c.video, c.label) for c in clips] == [("brush_hair/a #1;(x)!.avi", "brush hair")]
    (tmp_path / "train.txt").write_text("videos/a b.mp4 0\nframes/c 16 1\n")
    (tmp_path / "labels.csv").write_text("id,name\n0,JumpHigh\n1,run\n")
    assert [(c.video, c.label) for c in read_dataset("list", tmp_path, "train").clips] == [
        ("videos/a b.mp4", "jump high"),
        ("frames/c", "run"),
    ]
    (tmp_path / "train.json").write_text(
        json.dumps([{"id": "3", "label": "holding cup", "template": "Holding [something]"}])
    )
    assert read_dataset("ssv2", tmp_path, "train").clips[0].label == "Holding something"


def test_own_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("video,caption,start,end\na.mp4,one,0,2\na.mp4,two,0,2\na.mp4,three,2,4\n")
    clips = read_dataset("plain", file).clips
    assert [(c.key, c.captions) for c in clips] == [("a.mp4#0-2", ("one", "two")), ("a.mp4#2-4", ("three",))]
    lines = tmp_path / "mine.jsonl"
    lines.write_text(
        '{"video": "a.mp4", "label": "run", "split": "train"}\n{"video": "b", "label": "sit", "split": "val"}\n'
    )
    assert read_dataset("plain", lines, "val").labels == ["sit"]


@pytest.mark.parametrize(
    ("name", "file", "content", "sentence"),
    [
        ("plain", "x.csv", "video,caption\na.mp4,\n", "line 2: expected a video and a caption"),
        ("plain", "x.csv", "path,caption\n", "line 1: expected a header with video"),
        ("plain", "x.csv", "video,caption,start,end\na,b,9,2\n", "line 2: expected both start and end"),
        ("plain", "x.jsonl", '{"video": 1', "line 1: expected a JSON object"),
        ("lsmdc", "x.csv", "a b c\n", "line 1: expected 6 fields"),
        ("ucf101", "x.txt", "\nnonsense\n", "line 2: expected Class/"),
        (
            "kinetics",
            "x.csv",
            "label,youtube_id,time_start,time_end\na,b,c,d\n",
            "line 2: expected a number of seconds",
        ),
        ("msrvtt", "x.json", "{\n", "line 2: not JSON"),
        (
            "msrvtt",
            "x.json",
            '{"sentences": [{"video_id": 3}], "videos": []}',
            r"sentences\[0\]: expected 'video_id'",
        ),
        ("vatex", "x.json", '[{"videoID": "a"}]', r"\[0\]: expected 'enCap' as list"),
        ("ssv2", "x.json", "[{}]", "expected 'template' as str"),
        ("coco", "x.json", '{"images": [], "annotations": [{"image_id": 1}]}', "image_id 1 is not among"),
        ("list", "x.txt", "alone\n", "line 1: expected 'file label'"),
    ],
)
def test_wrong_files_say_where_and_what_was_expected(
    tmp_path: Path, name: str, file: str, content: str, sentence: str
) -> None:
    path = tmp_path / file
    path.write_text(content)
    with pytest.raises(VsearchError, match=sentence):
        read_dataset(name, path)


def test_unknown_set_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VsearchError, match="unknown dataset 'x'; known: msrvtt"):
        read_dataset("x", tmp_path)
    with pytest.raises(VsearchError, match="no such file"):
        read_dataset("msrvtt", tmp_path / "none")


def test_the_real_lists() -> None:
    shared = Path(os.environ.get("VSEARCH_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    folder = shared / "data" / "msrvtt"
    if not folder.is_dir():
        pytest.skip("the research data is not here")
    test = read_dataset("msrvtt", folder, "1k-A")
    assert (len(test.clips), test.clips[0].video) == (1000, "video9770")
    nine, seven = read_dataset("msrvtt", folder, "9k"), read_dataset("msrvtt", folder, "7k")
    assert (len(nine.clips), len(seven.clips)) == (9000, 7010)
    assert not {c.video for c in nine.clips} & {c.video for c in test.clips}
    assert sum(len(c.captions) for c in nine.clips) == 180_000


def test_a_clip_listed_twice_is_one_with_all_its_captions(tmp_path: Path) -> None:
    file, said = tmp_path / "hf.json", list[str]()
    rows = [("a", "one"), ("b", "two"), ("a", "three"), ("a", "one")]
    file.write_text(json.dumps([{"video_id": video, "caption": text} for video, text in rows]))
    found = read_dataset("msrvtt", file, report=said.append)
    assert [(c.video, c.captions) for c in found.clips] == [("a", ("one", "three")), ("b", ("two",))]
    assert "1 listed more than once" in said[0]
    assert said[0].endswith(": a")
    (tmp_path / "JSFUSION.csv").write_text("video_id,sentence\nv1,one\nv1,two\n")
    assert len(read_dataset("msrvtt", tmp_path / "JSFUSION.csv").clips) == 1
    (tmp_path / "list.txt").write_text("a.mp4 run\na.mp4 jump\n")
    with pytest.raises(VsearchError, match=r"a\.mp4 is listed as 'run' and as 'jump'"):
        read_dataset("list", tmp_path / "list.txt")


def test_videos_without_a_caption_are_left_out_by_name(tmp_path: Path) -> None:
    file, said = tmp_path / "hf.json", list[str]()
    content = [("a", ["one", " "]), ("silent", []), ("blank", ["", "\t"])]
    file.write_text(json.dumps([{"video_id": video, "caption": texts} for video, texts in content]))
    found = read_dataset("msrvtt", file, report=said.append)
    assert [(c.video, c.captions) for c in found.clips] == [("a", ("one",))]
    assert said == [
        f"{file}: 2 without a caption are left out: silent, blank",
        f"{file}: empty captions are left out of 1: a",
    ]
    file.write_text(json.dumps([{"video_id": "a", "caption": " "}]))
    with pytest.raises(VsearchError, match="no clips"):
        read_dataset("msrvtt", file)


@pytest.mark.parametrize(
    "rows",
    ['a.mp4,"a dog\nb.mp4,a cat\nc.mp4,rain\n', 'a.mp4,a fox\nb.mp4,"a dog\nc.mp4,"rain"\n'],
    ids=["to the end", "to the next quote"],
)
def test_a_quote_that_is_not_closed_is_refused_where_it_opens(rows: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(f"video,caption\n{rows}")
    line = 1 + next(i for i, row in enumerate(rows.splitlines(), 1) if '"' in row)
    with pytest.raises(VsearchError, match=f"line {line}: a quote .* opens a field and does not close it"):
        read_dataset("plain", tmp_path / "mine.csv")


def test_a_quoted_caption_may_have_commas_quotes_and_lines(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text('video,caption\na.mp4,"a ""dog"",\nand a cat"\nb.mp4,rain\n')
    found = read_dataset("plain", tmp_path / "mine.csv").clips
    assert [c.captions[0] for c in found] == ['a "dog",\nand a cat', "rain"]
