# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Draw one image with MuJoCo off-screen; exit 1, saying what to do, if that does not work.

    .venv/bin/python tools/setup/check_renderer.py
"""

from __future__ import annotations

import os
import sys

SIZE = 32
MODEL = """<mujoco>
  <visual><quality offsamples="0"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="above" pos="0 0 2"/>
    <geom type="box" size=".5 .5 .5" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>"""


def main() -> int:
    """Render a red box from above; return the exit status."""
    os.environ.setdefault('MUJOCO_GL', 'egl')
    try:
        import mujoco

        model = mujoco.MjModel.from_xml_string(MODEL)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        renderer = mujoco.Renderer(model, SIZE, SIZE)
        renderer.update_scene(data, camera='above')
        red, green, blue = renderer.render()[SIZE // 2, SIZE // 2]
        renderer.close()
    except Exception as error:  # noqa: BLE001 a missing driver shows as any of a dozen types
        print(f'MuJoCo cannot draw with MUJOCO_GL={os.environ["MUJOCO_GL"]}: {error!r}')
        print('Mesa draws without a GPU: apt-get install -y libegl1 libgl1 libgl1-mesa-dri')
        return 1
    if not (int(red) > int(green) + 50 and green == blue):
        print(f'MuJoCo drew a red box as ({red}, {green}, {blue}): the OpenGL driver is broken')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
