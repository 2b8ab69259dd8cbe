-- Joined behind `queues` in front of the scripts that say where a job stands.

-- The first id of a millisecond, which may lie before all time.
local function id_at(time)
  return time <= 0 and '0-1' or string.format('%.0f-0', time)
end

-- The queues of a model, the highest priority first, and the number of the one with this priority.
local function queues_of(model, priority)
  local queues, own_index = {}, nil
  for index, name in ipairs(PRIORITIES) do
    queues[index] = queue_key(model, name)
    own_index = name == priority and index or own_index
  end
  return queues, own_index
end

-- New jobs of queue `index` are ahead of the job at `entry` of queue `own_index` up to this id: those of a lower level, and
-- the older ones of the same.
local function bound_of(index, own_index, entry, aging)
  local height = level(own_index, entry, aging)
  local ms, seq = parts(entry)
  if index == own_index then
    return entry
  elseif index < height then
    return '+'
  end
  -- Entries of two streams may have the same id.
  local older = ms .. '-' .. (index < own_index and seq + 1 or seq)
  local same = index == height and older or id_at(now - (index - height) * aging + 1)
  local bound = is_before(same, older) and same or older
  local lower = id_at(now - (index - height + 1) * aging + 1)
  return height > 1 and is_before(bound, lower) and lower or bound
end

-- Jobs that wait ahead of the job at `entry`, and row-steps that are left of all jobs ahead.
local function ahead_of(queues, own_index, entry, aging)
  local was_begun = not is_before(last_delivered(queues[own_index]) or '0-0', entry)
  local waiting, ahead = 0, 0
  for index, queue in ipairs(queues) do
    local delivered, pending = last_delivered(queue)
    delivered = delivered or '0-0'
    each_begun(queue, delivered, function(_, other, work, is_waiting)
      local is_own = other == entry and index == own_index
      local is_older = is_before(other, entry) or (other == entry and index < own_index)
      if not is_own and (not was_begun or not is_waiting or is_older) then
        ahead = ahead + work
        waiting = waiting + (is_waiting and 1 or 0)
      end
    end)
    if not was_begun then
      local count, work = new_before(queue, delivered, pending, bound_of(index, own_index, entry, aging))
      waiting, ahead = waiting + count, ahead + work
    end
  end
  return waiting, ahead
end

-- {jobs waiting ahead, row-steps left of all jobs ahead, row-steps left of its own, the job's hash}: the hash and the place
-- are of one moment. `aging` is ms of waiting that count as one level. Nothing is ahead of a job that runs; -1 jobs are
-- ahead of one that has ended. The hash is empty where there is no such job.
local function place_of(id, aging)
  local facts, named = redis.call('HGETALL', job_key(id)), {}
  for i = 1, #facts, 2 do
    named[facts[i]] = facts[i + 1]
  end
  local own = math.max(0, (tonumber(named['work']) or 0) - (tonumber(named['done']) or 0))
  if named['state'] ~= 'queued' then
    return {named['state'] == 'running' and 0 or -1, 0, own, facts}
  end
  local queues, own_index = queues_of(named['model'], named['priority'])
  local waiting, ahead = ahead_of(queues, own_index, named['entry'], aging)
  return {waiting, ahead, own, facts}
end
