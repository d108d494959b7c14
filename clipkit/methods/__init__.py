"""The published methods, one file each, grouped by what they do; here is what there is, as data.

`clipkit methods` lists it. Importing this imports no method.
"""

from clipkit.registry import Entry, Registry

_C = "clipkit.methods.decisions"

DECISIONS = Registry(
    "decisions",
    Entry("ensemble", f"{_C}.ensemble:Ensemble", "The mean of a label's prompts; the default (Radford et al., 2021)."),
    Entry("zpe", f"{_C}.zpe:Zpe", "Templates weighted by the images, without labels (Allingham et al., 2023)."),
    Entry("contexts", f"{_C}.contexts:Contexts", "PerceptionCLIP: the surroundings first, then the label (2024)."),
    Entry("loki", f"{_C}.loki:Loki", "The label nearest to all it may be, by a tree or texts (Roberts et al., 2023)."),
    described=True,
)

_S = "clipkit.methods.scorers"

SCORERS = Registry(
    "scorers",
    Entry("clip", f"{_S}.clip:Clip", "Cosine of image and caption (Hessel et al., 2021, without their factor)."),
    Entry("clip-flip", f"{_S}.clip:ClipFlip", "The same with the image mirrored: text in it counts less."),
    Entry("tmars", f"{_S}.tmars:TMars", "The same with text in the image masked (Maini et al., 2023); and its area."),
    Entry("retrieval-rank", f"{_S}.rank:RetrievalRank", "Rank of the caption among those of its batch."),
    Entry("prompts", f"{_S}.prompts:Prompts", "Zero-shot probability of a concept: --concept 'a watermark|a photo'."),
    Entry("head", f"{_S}.head:Head", "A linear head on image features, from a file: LAION's aesthetics, for one."),
    Entry("lang", f"{_S}.lang:Lang", "Language of the caption and its probability (fastText's lid.176)."),
    Entry("caption", f"{_S}.caption:Caption", "Words, characters, digits, repetition and boilerplate of the caption."),
    Entry("quality", f"{_S}.quality:Quality", "Dark, light, blurry, low information, odd, gray: as cleanvision says."),
    Entry("aspect", f"{_S}.size:Aspect", "The longer side over the shorter."),
    Entry("size", f"{_S}.size:Size", "Width and height in pixels, and bytes."),
    Entry("hash", f"{_S}.hashes:Hash", "SHA-256 of bytes and of pixels, pHash and dHash."),
)

_D = "clipkit.methods.dedupers"

DEDUPERS = Registry(
    "dedupers",
    Entry("bytes", f"{_D}.exact:Bytes", "Equal image files, by sha256."),
    Entry("pixels", f"{_D}.exact:Pixels", "Equal pictures once decoded, by sha256."),
    Entry("url", f"{_D}.exact:Url", "Equal addresses, once normalised."),
    Entry("text", f"{_D}.exact:Text", "Equal captions, once normalised."),
    Entry("phash", f"{_D}.hamming:PHash", "Perceptual hashes at most --hamming bits apart."),
    Entry("dhash", f"{_D}.hamming:DHash", "Gradient hashes at most --hamming bits apart."),
    Entry("semantic", f"{_D}.semantic:Semantic", "SemDeDup: near features within clusters (Abbas et al., 2023)."),
)

_F = "clipkit.methods.filters.presets"

FILTERS = Registry(
    "filters",
    Entry("datacomp-basic", f"{_F}:datacomp_basic", "DataComp's basic filtering (Gadre et al., 2023)."),
    Entry("laion2b", f"{_F}:laion2b", "DataComp's LAION-2B filter: English and ViT-B-32 at least 0.28."),
    Entry("text-based", f"{_F}:text_based", "DataComp's text-based filter: English, and a word of ImageNet-21k."),
    Entry("clip-l14-30", f"{_F}:clip_l14_30", "DataComp's best by score: the top 30 % by ViT-L-14."),
    Entry("dfn", f"{_F}:dfn", "The top 15 % by a data filtering network of your own (Fang et al., 2023)."),
)

_P = "clipkit.methods.pruners"

PRUNERS = Registry(
    "pruners",
    Entry("density", f"{_P}.density:Density", "Most from complex clusters, their hardest (Abbas et al., 2024)."),
    Entry("prototypes", f"{_P}.prototypes:Prototypes", "Farthest from their prototypes (Sorscher et al., 2022)."),
    Entry("tldr", f"{_P}.tldr:TLDR", "Every n-th of each cluster, if its score is of the better half (2023)."),
    Entry("image-based", f"{_P}.image_based:ImageBased", "Clusters that a reference set hits (Gadre et al., 2023)."),
    Entry("random", f"{_P}.random:Random", "As many at random: the control that every claim needs."),
)

_A = "clipkit.methods.adapters"

ADAPTERS = Registry(
    "adapters",
    Entry("prototypes", f"{_A}.prototypes:Prototypes", "Class means; classes and samples can be added later."),
    Entry("ridge", f"{_A}.ridge:Ridge", "Least squares with a ridge penalty, in closed form."),
    Entry("linear", f"{_A}.linear:Linear", "Logistic regression by L-BFGS (Radford et al., 2021)."),
    Entry("tip", f"{_A}.tip:Tip", "Tip-Adapter: a cache of the samples, without training (Zhang et al., 2022)."),
    Entry("tip-f", f"{_A}.tip_f:TipF", "Tip-Adapter-F: the cache's keys are trained (Zhang et al., 2022)."),
    Entry("gda", f"{_A}.gda:Gda", "Gaussian discriminant analysis: hard to beat (Wang et al., 2024)."),
    Entry(
        "lp++", f"{_A}.lpp:LpPlusPlus", "LP++: a linear probe that blends in the text by class (Huang et al., 2024)."
    ),
    Entry(
        "clip-adapter", f"{_A}.clip_adapter:ClipAdapter", "CLIP-Adapter: a bottleneck on features (Gao et al., 2021)."
    ),
    Entry("coop", f"{_A}.coop:CoOp", "CoOp: learned prompt contexts (Zhou et al., 2022)."),
    Entry("lora", f"{_A}.lora:Lora", "CLIP-LoRA: low-rank updates of both towers (Zanella and Ben Ayed, 2024)."),
    Entry("svd", f"{_A}.svd:Svd", "CLIP-SVD: singular values of the weights are trained (Koleilat et al., 2025)."),
    described=True,
)

_E = "clipkit.stages"

TASKS = Registry(
    "tasks",
    Entry("classification", f"{_E}.eval_classification:EvalClassification", "Images into classes: top-1, top-5."),
    Entry("predictions", f"{_E}.eval_predictions:EvalPredictions", "Answers that records carry: no model runs."),
    Entry("retrieval", f"{_E}.eval_retrieval:EvalRetrieval", "Images and captions both ways: recall, median rank."),
    Entry("pairs", f"{_E}.eval_pairs:EvalPairs", "The right caption or a near miss: SugarCrepe, Winoground."),
    Entry(
        "robustness",
        f"{_E}.eval_robustness:EvalRobustness",
        "Pictures of few pixels, and spoilt ones: what is left of top-1.",
    ),
    Entry("few-shot", f"{_E}.eval_few_shot:EvalFewShot", "What adapters learn from K images a class, over draws."),
    Entry("linear-probe", f"{_E}.eval_few_shot:EvalLinearProbe", "Logistic regression on features (Radford, 2021)."),
    Entry("ood", f"{_E}.eval_ood:EvalOod", "Images of none of the classes, told by a score: AUROC, FPR95."),
)

_W = "clipkit.methods.captioners"

CAPTIONERS = Registry(
    "captioners",
    Entry("tags", f"{_W}.tags:Tags", "The concepts that zero-shot finds, before the caption; nothing to download."),
    Entry("coca", f"{_W}.coca:Coca", "CoCa's decoder, as open_clip has it: beam search and nucleus sampling."),
    Entry("hf", f"{_W}.hf:Hf", "A local captioner of transformers: BLIP, GIT, ViT-GPT2, by name or folder."),
    Entry("vlm", f"{_W}.vlm:Vlm", "A vision-language model behind a server (OpenAI's protocol) is asked by a recipe."),
    Entry("rewrite", f"{_W}.rewrite:Rewrite", "A language model behind a server rewrites or merges captions."),
    described=True,
)

_L = "clipkit.methods.losses"

LOSSES = Registry(
    "losses",
    Entry("clip", f"{_L}.clip:Clip", "Each image among all texts, each text among all images (Radford et al., 2021)."),
    Entry("siglip", f"{_L}.siglip:SigLip", "Each image with each text, pair or no pair (Zhai et al., 2023)."),
    Entry("coca", f"{_L}.coca:CoCa", "Contrast, and captions token by token: for CoCa models (Yu et al., 2022)."),
    Entry("multi-positive", f"{_L}.multi_positive:MultiPositive", "Several captions an image (DreamLIP, 2024)."),
    Entry("hq-clip", f"{_L}.hq_clip:HqClip", "Several captions, and negative ones, after HQ-CLIP (Wei et al., 2025)."),
    Entry("infoloob", f"{_L}.infoloob:InfoLoob", "CLOOB: InfoLOOB with Hopfield retrieval (Fürst et al., 2022)."),
    Entry("softened", f"{_L}.softened:Softened", "Part of the truth to other pairs (PyramidCLIP, Gao et al., 2022)."),
    Entry("distill", f"{_L}.distill:Distill", "A teacher's answers too, as in TinyCLIP (Wu et al., 2023)."),
    described=True,
)

_X = "clipkit.exporting.targets"

EXPORTERS = Registry(
    "exporters",
    Entry("onnx", f"{_X}.onnx:Onnx", "ONNX in f32, for onnxruntime; with --int8 in 8 bits. The default."),
    Entry("fp16", f"{_X}.fp16:Fp16", "ONNX with 16-bit weights: half the size."),
    Entry("openvino", f"{_X}.openvino:OpenVino", "OpenVINO's own format, for Intel's processors."),
    Entry("torch.export", f"{_X}.torch_export:TorchExport", "Programs of torch.export (.pt2), for torch without code."),
    Entry("safetensors", f"{_X}.safetensors:Safetensors", "Weights and configuration as open_clip loads them."),
    Entry("hf", f"{_X}.hf:Hf", "Weights and configuration as transformers' CLIPModel loads them."),
    Entry("head", f"{_X}.head:Head", "One graph, picture in, probabilities of fixed labels out."),
    Entry("coreml", f"{_X}.coreml:CoreMl", "Core ML packages, for Apple's devices; made and checked on macOS."),
    Entry("executorch", f"{_X}.executorch:ExecuTorch", "ExecuTorch programs (.pte), for phones."),
    described=True,
    hints={"int8": "that is a flag: --to onnx --int8"},
)

_KINDS = (DECISIONS, SCORERS, FILTERS, DEDUPERS, PRUNERS, CAPTIONERS, ADAPTERS, LOSSES, TASKS, EXPORTERS)
REGISTRIES = {registry.kind: registry for registry in _KINDS}
