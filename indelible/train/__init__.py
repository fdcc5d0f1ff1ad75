"""The one training loop. A stage is a setting of it: a spec, a parent checkpoint and token stores in, a result out.

Nothing here knows of studies, arms or workers; `indelible.scheduling` calls `stage.run_stage` and reads its files.
"""
